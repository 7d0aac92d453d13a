"use strict";
(() => {
  // Maps: the words of a cell below its map, and one cursor that the arrow keys move.
  const dressMap = (map) => {
    const svg = map.querySelector(".scroll > svg");
    const detail = map.querySelector(".detail");
    if (!svg || !svg.querySelector(".cell")) return;
    const place = (cell) => cell.dataset.at.split(",").map(Number);
    const cells = () => [...svg.querySelectorAll(".cell")];
    const cursor = () => svg.querySelector('.cell[tabindex="0"]') || svg.querySelector(".cell");
    const ends = [0, 1].map((axis) => Math.max(...cells().map((cell) => place(cell)[axis])));
    const tell = (cell) => {
      detail.textContent = cell.querySelector("title").textContent;
      detail.classList.add("said");
      cell.dispatchEvent(new CustomEvent("told", { bubbles: true }));
    };
    const go = (cell) => {
      for (const other of svg.querySelectorAll('.cell[tabindex="0"]')) other.setAttribute("tabindex", "-1");
      cell.setAttribute("tabindex", "0");
    };
    const best = svg.querySelector(".cell .best");
    if (best) go(best.closest(".cell"));
    svg.addEventListener("pointerover", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) tell(cell);
    });
    svg.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) { go(cell); cell.focus(); tell(cell); }
    });
    svg.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) { go(cell); tell(cell); }
    });
    svg.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const step = steps[event.key];
      let next = null;
      if (event.key === "Home") next = cells()[0];
      else if (event.key === "End") next = cells().pop();
      else if (!step) return;
      event.preventDefault();
      let [x, y] = place(cursor());
      while (!next && step) {
        x += step[0];
        y += step[1];
        if (x < 0 || y < 0 || x > ends[0] || y > ends[1]) return;
        next = svg.querySelector(`.cell[data-at="${x},${y}"]`);
      }
      if (next) next.focus();
    });
  };

  // Tables: a press on a head sorts by it, again the other way; long ones have a filter.
  const units = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  const number = (text) => parseFloat(text) * (units[text.split(" ")[1]] || 1);
  const dressTable = (table) => {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const of = (row) => row.cells[column].textContent;
        const rows = [...body.rows].sort((a, b) => {
          const [first, second] = [number(of(a)), number(of(b))];
          if (Number.isNaN(first) || Number.isNaN(second)) {
            if (Number.isNaN(first) !== Number.isNaN(second)) return Number.isNaN(first) ? 1 : -1;
            return of(a).localeCompare(of(b)) * (down ? -1 : 1);
          }
          return (first - second) * (down ? -1 : 1);
        });
        body.append(...rows);
      });
    });
    if (table.dataset.long === undefined) return;
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    label.append("Rows that hold ", input);
    table.parentNode.before(label);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  };

  const dress = (root) => {
    root.querySelectorAll("figure.map").forEach(dressMap);
    root.querySelectorAll("table").forEach(dressTable);
  };
  dress(document);
  document.addEventListener("replaced", (event) => dress(event.target));

  // A printed page shows the short tables that are folded; the table of all cells stays as it is.
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details.long")) if (one.querySelectorAll("tr").length < 60) one.open = true;
  });
})();
