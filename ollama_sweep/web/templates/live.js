"use strict";
(() => {
  const events = document.body.dataset.events;
  const said = document.getElementById("live");
  const tell = (words) => { if (said.textContent !== words) said.textContent = words; };
  const byId = (id) => document.getElementById(id);

  // Times in the reader's own zone.
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      time.title = time.textContent;
      time.textContent = moment.toLocaleString([], { dateStyle: "medium", timeStyle: time.dateTime.length > 17 ? "medium" : "short" });
    }
  };

  // A part of the page is replaced; what the reader has opened, scrolled to, typed and focused stays.
  const kept = (part) => {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const figure = focused && focused.closest("figure.map");
    return {
      open: [...part.querySelectorAll("details")].map((one) => one.open),
      scroll: [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft),
      typed: [...part.querySelectorAll("input[type=search]")].map((one) => one.value),
      details: [...part.querySelectorAll(".detail")].map((one) => one.classList.contains("said") ? one.textContent : null),
      cell: figure && focused.dataset.at ? [figure.id, focused.dataset.at] : null,
      index: focused && !figure ? [...part.querySelectorAll("a, button, input, select, summary, [tabindex]")].indexOf(focused) : -1,
    };
  };
  const restore = (part, state) => {
    part.querySelectorAll("details").forEach((one, at) => { if (state.open[at]) one.open = true; });
    part.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = state.scroll[at] || 0; });
    part.querySelectorAll("input[type=search]").forEach((one, at) => {
      if (state.typed[at]) { one.value = state.typed[at]; one.dispatchEvent(new Event("input")); }
    });
    part.querySelectorAll(".detail").forEach((one, at) => {
      if (state.details[at]) { one.textContent = state.details[at]; one.classList.add("said"); }
    });
    const figure = state.cell && byId(state.cell[0]);
    const again = figure ? figure.querySelector(`.cell[data-at="${state.cell[1]}"]`)
      : [...part.querySelectorAll("a, button, input, select, summary, [tabindex]")][state.index];
    if (again) again.focus({ preventScroll: true });
  };
  const shown = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part.id, part.innerHTML]));
  const replace = (fresh) => {
    const part = byId(fresh.id);
    if (!part || shown.get(fresh.id) === fresh.innerHTML) return;
    shown.set(fresh.id, fresh.innerHTML);
    const state = kept(part);
    const here = document.adoptNode(fresh);
    part.replaceWith(here);
    localise(here);
    here.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
    restore(here, state);
  };
  const parsed = (html) => new DOMParser().parseFromString(html, "text/html");

  let asking = null;
  const refresh = async () => {
    if (asking) return;
    asking = new AbortController();
    try {
      const answer = await fetch(location.href, { signal: asking.signal });
      if (answer.ok || answer.status === 503) for (const part of parsed(await answer.text()).querySelectorAll("[data-live]")) replace(part);
    } catch { /* the stream says when the server is back */ } finally { asking = null; }
  };

  // One cell of a map, drawn anew by the server.
  const redraw = ([figure, at, html]) => {
    const old = document.querySelector(`#${CSS.escape(figure)} .cell[data-at="${at}"]`);
    if (!old) return;
    const fresh = document.adoptNode(parsed(`<svg>${html}</svg>`).querySelector("g"));
    fresh.setAttribute("tabindex", old.getAttribute("tabindex"));
    const focused = old === document.activeElement;
    old.replaceWith(fresh);
    if (focused) fresh.focus({ preventScroll: true });
    const figures = byId(figure).closest("[data-live]");
    if (figures) shown.delete(figures.id);
  };

  // The stream: one for a page that is seen, none for one that is not.
  let stream = null, spokenAt = 0, spoken = "";
  const speak = () => {
    const state = document.querySelector("#progress .state");
    if (!state) return;
    const word = state.querySelector("strong").textContent;
    if (word === spoken && Date.now() - spokenAt < 60000) return;
    spoken = word;
    spokenAt = Date.now();
    tell(`The sweep ${word === "finished" ? "is finished" : word}: ${state.querySelector("span").textContent} cells.`);
  };
  const close = () => { if (stream) stream.close(); stream = null; };
  const open = () => {
    if (stream || !events || document.hidden) return;
    stream = new EventSource(events);
    let was = false;
    stream.addEventListener("hello", () => { if (was) refresh(); was = true; document.body.dataset.stream = "open"; speak(); });
    stream.addEventListener("progress", (event) => { replace(parsed(event.data).querySelector("#progress")); speak(); });
    stream.addEventListener("cells", (event) => JSON.parse(event.data).forEach(redraw));
    stream.addEventListener("stale", refresh);
    stream.addEventListener("ended", () => {
      close();
      document.body.dataset.stream = "ended";
      tell("Another page has the live view now. Touch this one, or press a key, to take it back.");
      for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, back, { once: true });
    });
    stream.addEventListener("error", () => {
      document.body.dataset.stream = "lost";
      tell("The server does not answer; trying again.");
      if (stream && stream.readyState === EventSource.CLOSED) { close(); setTimeout(open, 5000); }
    });
  };
  const back = () => { if (!stream) { tell(""); open(); refresh(); } };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); if (asking) asking.abort(); } else if (document.body.dataset.stream !== "ended") { open(); refresh(); }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) back(); });

  // A cell that is looked at for a moment: the commands that repeat it, and the way to all that is known; of a tile the
  // way to its cells.
  let waiting = 0;
  const below = (figure, ...content) => {
    let box = figure.querySelector(".brief");
    if (!box) {
      box = document.createElement("div");
      box.className = "brief";
      figure.querySelector(".detail").after(box);
    }
    box.replaceChildren(...content);
  };
  document.addEventListener("told", (event) => {
    const cell = event.target;
    const figure = cell.closest("figure.map");
    clearTimeout(waiting);
    if (cell.dataset.zoom) {
      const way = document.createElement("a");
      way.href = cell.dataset.zoom;
      way.textContent = "Show this part of the map by itself";
      below(figure, way);
    }
    if (!cell.dataset.link) return;
    waiting = setTimeout(async () => {
      try {
        const answer = await fetch(`${cell.dataset.link}&part=brief`);
        if (answer.ok) below(figure, ...parsed(await answer.text()).body.childNodes);
      } catch { /* the words of the cell are there all the same */ }
    }, 300);
  });
  const go = (event) => {
    const cell = event.target.closest && event.target.closest(".cell[data-link], .cell[data-zoom]");
    if (cell) location.href = cell.dataset.link || cell.dataset.zoom;
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Enter") go(event); });
  document.addEventListener("dblclick", go);

  localise(document);
  open();
})();
