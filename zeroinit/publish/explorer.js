// The explorer: lets a reader pick runs, follow a cell of the evidence to its runs, and read the
// claims. `data` comes from `_slots` in zeroinit/publish/explorer.py; the views are Vega-Lite
// charts, drawn by vegaEmbed.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("page-data").textContent);
const darkTheme = matchMedia("(prefers-color-scheme: dark)");

const views = {}; // name of a view -> the Vega view that was drawn
const keptPicks = new Set(["work", "dataset", "model"]); // stay when another pick changes
const switched = new Map(); // series -> whether a click switched it on or off
let group = data.groups[data.opens]; // the runs that are shown
let claim = data.claims[0]; // the claim whose differences are shown

// ---------------------------------------------------------------------------------------------
// Elements, colors, and the options of a chart
// ---------------------------------------------------------------------------------------------
function makeElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Mark which of some buttons is the current one; to a screen reader, an empty value is false.
function markCurrent(selector, isCurrent) {
  for (const button of document.querySelectorAll(selector)) {
    if (isCurrent(button)) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

const COLORS_ON_DARK = {
  "#000000": "#f0f0f0",
  "#0173b2": "#3f9fd8",
  "#7a3fa0": "#b58be0",
  "#5b3c11": "#b98a4c",
  "#1f5f54": "#4fae9c",
  "#a8326b": "#e07aab",
  "#3b0a8f": "#c3b1ff",
};

// Replace the colors in a text by those that can be seen in the reader's theme.
function adaptColors(text) {
  if (!darkTheme.matches) return text;
  return text.replace(/#[0-9a-f]{6}/g, (color) => COLORS_ON_DARK[color] ?? color);
}

function chartOptions() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const labels = {
    labelColor: color("--ink"),
    labelFontSize: 12,
    titleColor: color("--soft"),
    titleFontSize: 12,
    titleFontWeight: "normal",
  };
  const lines = {
    gridColor: color("--line"),
    domainColor: color("--soft"),
    tickColor: color("--soft"),
  };
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    text: { color: color("--ink") },
    axis: { ...labels, ...lines },
    legend: labels,
  };
  const theme = darkTheme.matches ? "dark" : "light";
  return { actions: false, renderer: "svg", logLevel: 1, config, tooltip: { theme } };
}

function themedSpec(name) {
  return JSON.parse(adaptColors(JSON.stringify(data.views[name])));
}

// Set the parameters of a view; charts follow a moment later.
function setSignals(name, signals) {
  const view = views[name];
  if (!view) return;
  for (const [signal, value] of Object.entries(signals)) view.signal(signal, value);
  return view.runAsync();
}

// Charts whose place has become visible or has moved fit themselves to it.
function resizeCharts() {
  dispatchEvent(new Event("resize"));
}

async function drawViews() {
  for (const name of Object.keys(data.views)) {
    views[name]?.finalize();
    const embedded = await vegaEmbed(byId(name), themedSpec(name), chartOptions());
    views[name] = embedded.view;
  }
  await showGroup();
}

// ---------------------------------------------------------------------------------------------
// The page of runs
// ---------------------------------------------------------------------------------------------
const isOn = (series) => switched.get(series.series) ?? series.opened;

// Each picker offers what there is beside the picks to its left.
function showPickers() {
  let candidates = data.groups;
  const pickers = data.picks.map((name) => {
    const values = new Set(candidates.map((candidate) => candidate.picks[name]));
    const options = [...values].map((value) => makeElement("option", {}, value));
    const select = makeElement("select", { name }, ...options);
    select.value = group.picks[name];
    select.onchange = () => pick(name, select.value);
    candidates = candidates.filter((candidate) => candidate.picks[name] === group.picks[name]);
    return makeElement("label", {}, name === "dataset" ? "data set" : name, select);
  });
  byId("picks").replaceChildren(...pickers);
}

// Show the group that has this value and the picks to its left, and keeps most of the others that
// the reader made; of several, the one with most schemes.
function pick(name, value) {
  keptPicks.add(name);
  const wanted = { ...group.picks, [name]: value };
  const required = data.picks.slice(0, data.picks.indexOf(name) + 1);
  const agrees = (candidate, key) => candidate.picks[key] === wanted[key];
  const countKept = (candidate) =>
    data.picks.filter((key) => keptPicks.has(key) && agrees(candidate, key)).length;

  let best = null;
  for (const candidate of data.groups) {
    if (!required.every((key) => agrees(candidate, key))) continue;
    const more = best ? countKept(candidate) - countKept(best) : 1;
    if (more > 0 || (more === 0 && candidate.series.length > best.series.length)) {
      best = candidate;
    }
  }
  group = best;
  showGroup();
  byId("picks").querySelector(`[name=${name}]`).focus();
}

function schemeButton(series) {
  const button = makeElement("button", { type: "button" });
  const line = `stroke="${adaptColors(series.color)}" stroke-dasharray="${series.dash}"`;
  const ends = 'x1="1" x2="27" y1="4" y2="4"';
  button.innerHTML = `<svg width="28" height="8"><line ${ends} stroke-width="3" ${line}/></svg>`;
  button.append(series.series, makeElement("small", {}, series.said));
  button.setAttribute("aria-pressed", isOn(series));
  button.onclick = () => {
    switched.set(series.series, !isOn(series));
    button.setAttribute("aria-pressed", isOn(series));
    updateViews();
  };
  return button;
}

// A button for each scheme, which is the legend too; those that are off at first are folded away.
function showSchemes() {
  const opened = group.series.filter(isOn).map(schemeButton);
  const folded = group.series.filter((series) => !isOn(series)).map(schemeButton);
  byId("schemes").replaceChildren(...opened);
  if (folded.length) {
    const words = `${folded.length} more ${folded.length > 1 ? "schemes" : "scheme"}`;
    const summary = makeElement("summary", {}, words);
    const buttons = makeElement("div", {}, ...folded);
    byId("schemes").append(makeElement("details", {}, summary, buttons));
  }
}

// Draw the schemes that are on.
function updateViews() {
  const off = group.series.filter((series) => !isOn(series)).map((series) => series.series);
  const signals = { runs: group.runs, off };
  const layer = Number(byId("layer").value) || 1;
  return Promise.all([
    setSignals("curves", signals),
    setSignals("waking", signals),
    setSignals("ranks", { ...signals, layer }),
  ]);
}

async function showGroup() {
  showPickers();
  showSchemes();
  byId("seeds").textContent = group.about;
  const layers = group.layers.map((name, i) =>
    makeElement("option", { value: i + 1 }, `${i + 1}: ${name}`),
  );
  byId("layer").replaceChildren(...layers);
  for (const name of ["waking", "ranks"]) {
    byId(name).closest("figure").hidden = !group.has[name];
  }
  await updateViews();
  resizeCharts();
  await showClaim(claim);
}

// ---------------------------------------------------------------------------------------------
// The page of the evidence
// ---------------------------------------------------------------------------------------------
// [group, series] for each experiment of a cell: all in one group, if there is one with them all.
function findSeries(hashes) {
  const inGroup = (candidate, hash) => candidate.series.find((series) => series.hash === hash);
  const count = (candidate) => hashes.filter((hash) => inGroup(candidate, hash)).length;
  const best = data.groups.reduce((a, b) => (count(b) > count(a) ? b : a));
  const found = [];
  for (const hash of hashes) {
    const home = [best, ...data.groups].find((candidate) => inGroup(candidate, hash));
    if (home) found.push([home, inGroup(home, hash)]);
  }
  return found;
}

function recordRows(series) {
  const experiment = data.experiments[series.hash];
  return experiment.made.map(({ seeds, commit, machine }) => {
    const folder = makeElement("code", {}, `${experiment.folder}/`);
    const cells = [series.series, folder, seeds, commit, machine];
    return makeElement("tr", {}, ...cells.map((cell) => makeElement("td", {}, cell)));
  });
}

// The runs behind a cell of the map.
async function showCell(index) {
  const cell = data.cells[index];
  const found = findSeries(cell.experiments);
  const figure = byId("cell");
  markCurrent(".map button", (button) => button.dataset.cell === index);
  figure.hidden = false;
  figure.querySelector("h2").textContent = cell.title;

  const [sentence, meaning] = figure.querySelectorAll("p");
  sentence.textContent = [cell.statement, cell.detail].filter(Boolean).join(". ");
  meaning.textContent = `“${cell.word}”: ${cell.meaning}.`;
  if (found.length) meaning.textContent += " The view and the table show all seeds that were run.";

  const rows = found.flatMap(([, series]) => recordRows(series));
  figure.querySelector("tbody").replaceChildren(...rows);
  figure.querySelector("table").hidden = !found.length;

  const showRuns = figure.querySelector("button");
  showRuns.hidden = !found.length;
  showRuns.onclick = () => {
    group = found[0][0];
    const ofCell = found.map(([, series]) => series);
    for (const series of group.series) {
      switched.set(series.series, series.opened || ofCell.includes(series));
    }
    showPage("runs");
    showGroup();
    scrollTo(0, 0);
  };

  await drawCell(cell, found);
  figure.scrollIntoView({ block: "nearest" });
  figure.querySelector("h2").focus({ preventScroll: true }); // so that it is read aloud
}

// The curves, or the waves of waking layers, of a cell's runs alone.
async function drawCell(cell, found) {
  const nameOf = (runs, series) => `${runs}\n${series}`;
  const wanted = new Set(found.map(([home, series]) => nameOf(home.runs, series.series)));
  const spec = themedSpec(cell.view);
  const rows = spec.datasets[spec.data.name].filter((row) =>
    wanted.has(nameOf(row.runs, row.series)),
  );
  views.behind?.finalize();
  views.behind = undefined;
  byId("behind").replaceChildren();
  if (!rows.length) return;
  spec.datasets[spec.data.name] = rows;
  spec.transform = [];
  const embedded = await vegaEmbed(byId("behind"), spec, chartOptions());
  views.behind = embedded.view;
}

// What is known about a claim, and each of its differences.
async function showClaim(chosen) {
  claim = chosen;
  for (const row of document.querySelectorAll("tr[data-claim]")) {
    row.classList.toggle("chosen", row.dataset.claim === claim.claim);
  }
  const figure = byId("differences");
  figure.querySelector("h2").textContent = `${claim.claim}, difference by difference`;
  const legend =
    " A cell holds if its thick bar (90 % t interval) lies within the pale band; " +
    "thin bar: 95 % interval; hollow diamond: published.";
  figure.querySelector("figcaption").textContent = `${claim.line}.${claim.effects ? legend : ""}`;
  byId("effects").hidden = !claim.effects;
  if (claim.effects) await setSignals("effects", { claim: claim.claim });
}

// ---------------------------------------------------------------------------------------------
// The whole page
// ---------------------------------------------------------------------------------------------
const PAGES = ["evidence", "runs", "league"];

function showPage(name) {
  markCurrent("nav button", (button) => button.name === name);
  for (const page of PAGES) byId(page).hidden = page !== name;
  resizeCharts();
}

function firstPage() {
  const asked = PAGES.find((name) => location.hash === `#${name}`);
  if (asked) return asked;
  // a map of cells without runs says nothing
  const hasEvidence = Object.values(data.cells).some((cell) => cell.word !== "not run");
  return hasEvidence ? "evidence" : "runs";
}

function addLinkHome() {
  const isOnSite = location.protocol.startsWith("http"); // not on the disk or in a notebook
  const link = isOnSite
    ? makeElement("a", { href: "index.html" }, "zeroinit, the first page")
    : makeElement(
        "a",
        { href: "https://github.com/zeroinit/zeroinit" },
        "zeroinit, the repository",
      );
  if (!isOnSite) Object.assign(link, { target: "_blank", rel: "noopener" });
  byId("home").append(link);
}

async function start() {
  byId("page").hidden = false;
  for (const button of document.querySelectorAll("nav button")) {
    button.onclick = () => showPage(button.name);
  }
  for (const button of document.querySelectorAll(".map button")) {
    button.onclick = () => showCell(button.dataset.cell);
  }
  for (const button of document.querySelectorAll("tr[data-claim] button")) {
    button.onclick = async () => {
      await showClaim(data.claims.find((entry) => entry.claim === button.textContent));
      byId("differences").scrollIntoView({ block: "nearest" });
    };
  }
  byId("claims").ontoggle = resizeCharts;
  byId("layer").onchange = updateViews;
  darkTheme.onchange = drawViews;
  await drawViews();
  showPage(firstPage());
}

addLinkHome();
if (group) await start();
document.body.dataset.ready = "yes";
