"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const all = (where, what) => Array.from(where.querySelectorAll(what));
  const one = (where, what) => where.querySelector(what);
  const COLOURS = ["#0a6fd6", "#d9730d", "#0f9d76", "#b0479b", "#7a6a00", "#c0392b", "#5b5bd6", "#5d6b7a"];
  const BRIGHT = ["#6db1ff", "#ffa657", "#4fd1a5", "#e58fd3", "#d8c65a", "#ff8a80", "#a3a3ff", "#a9b6c6"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
  const QUIET = { ok: "ok", suspect: "suspect", noisy: "noisy", discarded: "discarded" };
  root.classList.add("js");

  // What a plugin named is text: in a plot's labels too, where some markup would be read.
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const dark = () => {
    const chosen = root.dataset.theme;
    return !printing && (chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  };
  let printing = false;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const palette = () => (dark() ? BRIGHT : COLOURS);
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toPrecision(3);
  };
  const ends = (figures) => (figures[1] === null || figures[2] === null ? "" : ` (${number(figures[1])} to ${number(figures[2])})`);

  function layout(more) {
    const ink = printing ? "#000" : colour("--ink");
    const line = printing ? "#bbb" : colour("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, title: { standoff: 8 } };
    const merged = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 8, b: 44 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      hoverlabel: { align: "left" }, legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: { size: 11 } }, dragmode: false, hovermode: "closest",
    }, more);
    const ticks = (own) => (own && own.type === "log" ? { dtick: "D2" } : {}); // 1, 2, 5: the others only crowd
    merged.xaxis = Object.assign({}, axis, ticks(more.xaxis), more.xaxis);
    merged.yaxis = Object.assign({}, axis, ticks(more.yaxis), more.yaxis);
    return merged;
  }
  const CONFIG = { displaylogo: false, responsive: true, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const draw = (place, traces, more) => Plotly.react(place, traces, layout(more), CONFIG);

  // The overview: one Pareto plot, one plot of spreads and one table for each part.

  const parts = all(document, "section[data-part]").map((element) => ({ element, ...data.parts[Number(element.dataset.part)] }));
  const axisOf = (name) => data.axes.find((item) => item[0] === name);

  function axisInfo(part, name) {
    const [, words, , unit, lower] = axisOf(name);
    if (name === "quality") {
      return { words: part.quality.name, unit: part.quality.unit, lower: !part.quality.higher };
    }
    return { words, unit, lower };
  }

  function setAxes(part) {
    const known = data.axes.map((item) => item[0]).filter((name) => part.points.some((point) => point[name]));
    const [x, y] = [one(part.element, ".axis-x"), one(part.element, ".axis-y")];
    for (const select of [x, y]) {
      for (const name of known) {
        const info = axisInfo(part, name);
        select.add(new Option(info.words + (info.unit ? ` (${info.unit})` : ""), name));
      }
      select.addEventListener("change", () => pareto(part));
    }
    x.value = known.includes("p50") ? "p50" : known[0];
    y.value = known.includes("quality") ? "quality" : known.includes("speedup") ? "speedup" : known[known.length - 1];
    one(part.element, ".axes").hidden = false;
  }

  const shownKeys = (part) => new Set(all(part.element, "table.board tbody tr").filter((row) => !row.hidden).map((row) => row.dataset.key));

  function front(points, x, y, lowX, lowY) {
    const good = (point) => [point[x][0] * (lowX ? 1 : -1), point[y][0] * (lowY ? 1 : -1)];
    const ordered = points.slice().sort((a, b) => good(a)[0] - good(b)[0] || good(a)[1] - good(b)[1]);
    const kept = [];
    let best = Infinity;
    for (const point of ordered) {
      if (good(point)[1] < best) { kept.push(point); best = good(point)[1]; }
    }
    return kept;
  }

  function bars(points, name) {
    const known = points.map((point) => point[name]);
    if (known.every((item) => item[1] === null || item[2] === null)) return undefined;
    return {
      type: "data", symmetric: false, thickness: 1, width: 0,
      array: known.map((item) => (item[2] === null ? 0 : item[2] - item[0])),
      arrayminus: known.map((item) => (item[1] === null ? 0 : item[0] - item[1])),
    };
  }

  function pareto(part) {
    const place = one(part.element, ".pareto");
    const [x, y] = [one(part.element, ".axis-x").value, one(part.element, ".axis-y").value];
    const [across, up] = [axisInfo(part, x), axisInfo(part, y)];
    const keys = shownKeys(part);
    const points = part.points.filter((point) => point[x] && point[y] && keys.has(point.key));
    const targets = Array.from(new Set(part.points.map((point) => point.target)));
    const best = front(points, x, y, across.lower, up.lower);
    const soft = printing ? "#666" : colour("--soft");
    const traces = [{
      x: best.map((point) => point[x][0]), y: best.map((point) => point[y][0]), mode: "lines", name: "front",
      line: { color: soft, width: 1.5, dash: "dot", shape: "linear" }, hoverinfo: "skip", showlegend: best.length > 1,
    }];
    targets.forEach((target, at) => {
      const own = points.filter((point) => point.target === target);
      if (!own.length) return;
      const ink = palette()[at % 8];
      const faint = ink + "55";
      traces.push({
        x: own.map((point) => point[x][0]), y: own.map((point) => point[y][0]), customdata: own.map((point) => point.key),
        mode: "markers", name: text(target), cliponaxis: false,
        error_x: Object.assign({ color: faint }, bars(own, x)), error_y: Object.assign({ color: faint }, bars(own, y)),
        marker: { color: ink, size: own.map((point) => (best.includes(point) ? 13 : 9)), symbol: SYMBOLS[at % 8], opacity: own.map((point) => (best.includes(point) ? 1 : 0.65)), line: { width: 1, color: printing ? "#fff" : colour("--paper") } },
        text: own.map((point) => `<b>${text(point.method)}</b> on ${text(point.target)}${point.anchor ? " (anchor)" : ""}<br>${text(across.words)} ${number(point[x][0])} ${text(across.unit)}${ends(point[x])}<br>${text(up.words)} ${number(point[y][0])} ${text(up.unit)}${ends(point[y])}${point.noise && point.noise !== "ok" ? `<br>latency ${text(point.noise)}` : ""}`),
        hovertemplate: "%{text}<extra></extra>",
      });
    });
    const title = (info) => `${text(info.words)}${info.unit ? ` (${text(info.unit)})` : ""}, ${info.lower ? "lower" : "higher"} is better`;
    const spanned = (name) => { const values = points.map((point) => point[name][0]).filter((value) => value > 0); return values.length && Math.max(...values) / Math.min(...values) > 8; };
    draw(place, traces, {
      xaxis: { title: { text: title(across) }, type: spanned(x) ? "log" : "linear" },
      yaxis: { title: { text: title(up) }, type: spanned(y) ? "log" : "linear" },
    });
    if (!place.dataset.ready) {
      place.dataset.ready = "1";
      place.on("plotly_click", (event) => {
        const key = event.points.map((point) => point.customdata).find(Boolean);
        if (key) location.hash = key;
      });
    }
  }

  function spread(part) {
    const place = one(part.element, ".spread");
    const keys = shownKeys(part);
    const order = all(part.element, "table.board tbody tr").map((row) => row.dataset.key).filter((key) => keys.has(key) && data.cells[key]);
    const by = new Map(part.points.map((point) => [point.key, point]));
    const targets = Array.from(new Set(part.points.map((point) => point.target)));
    const shown = order.slice(0, 40);
    const traces = shown.length ? targets.map((target, at) => {
      const own = shown.filter((key) => by.get(key).target === target);
      const at5 = (key, share) => data.cells[key].quantiles[share];
      return {
        type: "box", orientation: "h", name: text(target), y: own.map((key) => key), customdata: own,
        q1: own.map((key) => at5(key, 25)), median: own.map((key) => at5(key, 50)), q3: own.map((key) => at5(key, 75)),
        lowerfence: own.map((key) => at5(key, 5)), upperfence: own.map((key) => at5(key, 95)),
        line: { color: palette()[at % 8], width: 1.3 }, fillcolor: palette()[at % 8] + "44", hoverinfo: "x+name", showlegend: false,
      };
    }).filter((trace) => trace.y.length) : [];
    const narrow = place.clientWidth < 420;
    const label = (key) => { const words = `${by.get(key).method} · ${by.get(key).target}`; const most = narrow ? 22 : 34; return text(words.length > most ? `${words.slice(0, most - 1)}…` : words); };
    const least = Math.min(...shown.map((key) => data.cells[key].quantiles[5])), most = Math.max(...shown.map((key) => data.cells[key].quantiles[95]));
    place.style.height = `${Math.max(352, 60 + 19 * shown.length)}px`;
    draw(place, traces, {
      height: Math.max(352, 60 + 19 * shown.length), margin: { l: 8, r: 12, t: 8, b: 44 },
      xaxis: { title: { text: `latency (ms)${order.length > 40 ? ", the first 40 rows" : ""}` }, type: most / least > 8 ? "log" : "linear" },
      yaxis: { categoryorder: "array", categoryarray: shown.slice().reverse(), tickvals: shown, ticktext: shown.map(label), tickfont: { size: 10.5 } },
    });
    if (!place.dataset.ready && traces.length) {
      place.dataset.ready = "1";
      place.on("plotly_click", (event) => { const key = event.points[0] && event.points[0].y; if (data.names[key]) location.hash = key; });
    }
  }

  function sortable(part) {
    const table = one(part.element, "table.board");
    const body = table.tBodies[0];
    const heads = all(table, "thead th");
    const order = one(part.element, ".order");
    const value = (row, at) => {
      const cell = row.cells[at];
      if (!("value" in cell.dataset)) return cell.textContent.trim().toLowerCase();
      return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
    };
    function sort(at, way) {
      const rows = Array.from(body.rows);
      const sign = way === "ascending" ? 1 : -1;
      rows.sort((one_, other) => {
        const [a, b] = [value(one_, at), value(other, at)];
        if (typeof a === "number" && typeof b === "number") {
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // not known comes last, both ways
          return sign * (a - b);
        }
        return sign * String(a).localeCompare(String(b), "en", { numeric: true });
      });
      body.append(...rows);
      heads.forEach((head, index) => head.setAttribute("aria-sort", index === at ? way : "none"));
      order.value = String(at);
      spread(part);
    }
    heads.forEach((head, at) => {
      order.add(new Option(one(head, "button").textContent, String(at)));
      one(head, "button").addEventListener("click", () => sort(at, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending"));
    });
    order.selectedIndex = -1;
    order.addEventListener("change", () => sort(Number(order.value), "ascending"));
  }

  function filterable(part) {
    const form = one(part.element, "form.filters");
    const rows = () => Array.from(one(part.element, "table.board").tBodies[0].rows);
    const field = (name) => one(form, name);
    function apply() {
      const words = field(".find").value.toLowerCase().split(/\s+/).filter(Boolean);
      const [target, verdict, gate] = [".by-target", ".by-verdict", ".by-gate"].map((name) => field(name).value);
      const onFront = field(".by-front").checked;
      let shown = 0;
      for (const row of rows()) {
        const here = row.textContent.toLowerCase();
        const keep = words.every((word) => here.includes(word)) && (!target || row.dataset.target === target) && (!verdict || row.dataset.verdict === verdict) &&
          Number(row.dataset.gate) >= Number(gate) && (!onFront || row.dataset.front === "1");
        row.hidden = !keep;
        shown += keep ? 1 : 0;
      }
      field(".count").textContent = `${shown} of ${rows().length} rows`;
      pareto(part);
      spread(part);
    }
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    apply();
  }

  // The page of one cell: drawn when it is opened.

  function overTime(article, cell) {
    const names = Object.keys(QUIET);
    const tones = { ok: palette()[2], suspect: palette()[1], noisy: palette()[5], discarded: palette()[7] };
    const by = Object.fromEntries(names.map((name) => [name, { x: [], y: [] }]));
    const edges = [];
    const middles = { x: [], y: [] };
    let at = 0;
    for (const launch of cell.launches) {
      const start = at;
      const into = by[launch.verdict] || by.noisy;
      for (const ms of launch.ms) { into.x.push(at); into.y.push(ms); at += cell.step; }
      const sorted = launch.ms.slice().sort((a, b) => a - b);
      if (sorted.length) { const middle = sorted[Math.floor(sorted.length / 2)]; middles.x.push(start, at - cell.step, null); middles.y.push(middle, middle, null); }
      edges.push(at - cell.step / 2);
    }
    const traces = names.filter((name) => by[name].x.length).map((name) => ({
      x: by[name].x, y: by[name].y, mode: "markers", name: `launch ${name}`, marker: { size: 3.5, color: tones[name], opacity: 0.65, symbol: name === "discarded" ? "x-thin-open" : "circle" }, hovertemplate: "sample %{x}: %{y:.4g} ms<extra></extra>",
    }));
    traces.push({ x: middles.x, y: middles.y, mode: "lines", name: "median of the launch", line: { color: printing ? "#000" : colour("--ink"), width: 1.5 }, hoverinfo: "skip" });
    const values = cell.quantiles;
    const top = Math.max(values[99] * 1.15, values[50] * 1.5);
    draw(one(article, ".over-time"), traces, {
      xaxis: { title: { text: cell.step > 1 ? `sample (every ${cell.step}th of ${cell.total} is drawn)` : `sample (all ${cell.total})` } },
      yaxis: { title: { text: "latency (ms)" }, range: [0, top] },
      shapes: edges.slice(0, -1).map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: printing ? "#ccc" : colour("--line"), width: 1 } })),
    });
  }

  function ecdf(article, key) {
    const line = (of, name, ink, dash) => ({
      x: data.cells[of].quantiles, y: data.cells[of].quantiles.map((_value, share) => share), mode: "lines", name: text(name),
      line: { color: ink, width: 2.2, dash }, hovertemplate: "%{y} % within %{x:.4g} ms<extra></extra>",
    });
    const traces = [line(key, data.names[key][0], palette()[0], "solid")];
    const anchor = data.anchors[key];
    if (anchor && data.cells[anchor]) traces.push(line(anchor, `${data.names[anchor] ? data.names[anchor][0] : "anchor"} (anchor)`, palette()[7], "dash"));
    const far = Math.max(...traces.map((trace) => trace.x[98]));
    draw(one(article, ".ecdf"), traces, {
      xaxis: { title: { text: "latency (ms)" }, range: [0, far * 1.1] }, yaxis: { title: { text: "share of calls (%)" }, range: [0, 101] },
    });
  }

  function drawCell(article) {
    const cell = data.cells[article.id];
    if (!cell) { one(article, ".charts").hidden = true; return; }
    overTime(article, cell);
    ecdf(article, article.id);
  }

  let before = null;
  function route() {
    const article = /^#c[0-9a-f]{12}$/.test(location.hash) ? document.getElementById(location.hash.slice(1)) : null;
    all(document, "article.open").forEach((item) => item.classList.remove("open"));
    root.classList.toggle("one", Boolean(article));
    if (article) {
      article.classList.add("open");
      drawCell(article);
      before = article.id;
      scrollTo(0, 0);
      one(article, "h2").focus({ preventScroll: true });
    } else if (before) {
      const row = one(document, `tr[data-key="${before}"]`);
      before = null;
      parts.forEach((part) => { if (part.points.length) { pareto(part); spread(part); } });
      if (row && (location.hash === "#board" || location.hash === "")) { row.scrollIntoView({ block: "center", behavior: "instant" }); one(row, "a").focus({ preventScroll: true }); }
    }
  }

  function redraw() {
    const open = one(document, "article.open");
    if (open) drawCell(open);
    else parts.forEach((part) => { if (part.points.length) { pareto(part); spread(part); } });
  }

  const theme = document.getElementById("theme");
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Change to the ${dark() ? "light" : "dark"} theme`); };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); redraw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); redraw(); });
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape" && root.classList.contains("one")) location.hash = "board"; });
  addEventListener("hashchange", route);

  label();
  for (const part of parts) {
    if (!part.points.length) continue;
    setAxes(part);
    sortable(part);
    filterable(part);
  }
  route();
  root.dataset.ready = "1";
})();
