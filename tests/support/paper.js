// What a printed page loses: beyond the edge of the paper, cut, a control, or on a ground that printers fill with ink.
() => {
  const found = [];
  const name = (one) => `${one.tagName.toLowerCase()}#${one.id}.${one.className.baseVal ?? one.className}`;
  const all = [...document.body.querySelectorAll("*")];
  const shown = all.filter((one) => one.checkVisibility() && !one.closest(".defs") && (!one.closest("svg") || one.matches("svg")));
  const shares = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => shares(colour).slice(0, 3).reduce((sum, part) => sum + part, 0) / 765;
  const is_clear = (colour) => shares(colour)[3] === 0;
  for (const one of shown) {
    const box = one.getBoundingClientRect();
    const style = getComputedStyle(one);
    if (box.width && box.right > innerWidth + 1) found.push(`beyond the edge by ${box.right - innerWidth}: ${name(one)}`);
    if (style.overflowX !== "visible" && !one.matches("svg, progress") && one.scrollWidth > one.clientWidth + 1) found.push(`cut: ${name(one)}`);
    if (one.matches("select, input, form button, nav a")) found.push(`a control: ${name(one)}`);
    if (one.matches("svg, .swatch, progress, .brief *")) continue;
    if (!is_clear(style.backgroundColor) && light(style.backgroundColor) < 0.8) found.push(`a dark ground: ${name(one)}`);
    if (light(style.color) > 0.6) found.push(`pale words: ${name(one)}`);
  }
  return found.slice(0, 20);
}
