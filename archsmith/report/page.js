"use strict";
// Draws the plots from the JSON beside it, in the page's own colours, and again when light turns to dark.
const figures = JSON.parse(document.getElementById("figures").textContent);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Plotly labels a logarithmic axis 2, 5, 10, 2, 5: whole numbers are read more easily.
function logarithmic(low, high) {
  const steps = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of [1, 2, 5]) steps.push(digit * 10 ** power);
  }
  return { type: "log", tickmode: "array", tickvals: steps, ticktext: steps.map((step) => String(Number(step.toPrecision(1)))) };
}

function axis(title, values, more) {
  const found = values.filter((value) => value > 0);
  const [low, high] = [Math.min(...found), Math.max(...found)];
  return Object.assign({
    title: { text: title, standoff: 8 }, gridcolor: colour("--line"), zeroline: false, automargin: true,
    tickfont: { color: colour("--soft") }, ...(found.length === values.length && high / low > 12 ? logarithmic(low, high) : {}),
  }, more);
}

function layout(x, y, more) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") };
  return Object.assign({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, xaxis: x, yaxis: y,
    margin: { l: 52, r: 18, t: 14, b: 46 }, hovermode: "closest", showlegend: false,
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { ...font, size: 12 }, align: "left" },
  }, more);
}

function points(list, x, name, look) {
  const there = list.filter((one) => one[x] !== null && one.quality !== null);
  return {
    type: "scatter", name, x: there.map((one) => one[x]), y: there.map((one) => one.quality),
    text: there.map((one) => one.hover), hovertemplate: "%{text}<extra></extra>", ...look,
  };
}

function quality(id, x, title, labelled) {
  const { front, ladder, original, best } = figures;
  const label = labelled ? "markers+text" : "markers";
  const traces = [
    points(ladder, x, "rung", { mode: "markers", marker: { size: 9, color: "rgba(0,0,0,0)", line: { width: 1.5, color: colour("--soft") } } }),
    points(front, x, "front", { mode: "lines+markers", line: { color: colour("--accent"), width: 1.5 }, marker: { size: 8, color: colour("--accent") } }),
    points(original, x, "original", { mode: label, texttemplate: "original", textposition: "bottom left", marker: { size: 12, symbol: "diamond", color: colour("--soft") } }),
    points(best, x, "best", { mode: label, texttemplate: "best", textposition: "top center", marker: { size: 14, color: colour("--other"), line: { width: 2, color: colour("--paper") } } }),
  ];
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" };
  const xs = traces.flatMap((trace) => trace.x);
  draw(id, traces, layout(axis(title, xs, labelled ? {} : { type: "linear", tickmode: "auto", tickformat: "~s" }), axis(figures.metric, [], labelled ? {} : { title: { text: "" } }),
    labelled ? { showlegend: true, legend, margin: { l: 56, r: 18, t: 40, b: 50 } } : {}));
}

function latency() {
  const colours = [colour("--accent"), colour("--other"), colour("--third"), colour("--good"), colour("--bad"), colour("--soft")];
  const all = figures.latency.flatMap((series) => [...series.measured, ...series.predicted]);
  const ends = [Math.min(...all) * 0.9, Math.max(...all) * 1.08];
  const traces = [{
    type: "scatter", mode: "lines", x: ends, y: ends, name: "exact", hoverinfo: "skip", line: { color: colour("--soft"), width: 1, dash: "dot" },
  }].concat(figures.latency.map((series, i) => ({
    type: "scatter", mode: "markers", name: series.name, x: series.predicted, y: series.measured, text: series.hover,
    hovertemplate: "%{text}<extra></extra>", marker: { size: 9, color: colours[i % colours.length] },
  })));
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" };
  draw("plot-latency", traces, layout(axis("predicted, ms", all), axis("measured, ms", all),
    { showlegend: true, legend, margin: { l: 56, r: 18, t: 40, b: 50 } }));
}

// Of a search: each trial and the best so far, and with several objectives the first two against each other.
function tried() {
  const { objective, best, number, value, reached, pair, all, front, named } = figures.search;
  const called = (numbers) => numbers.map((one) => `trial ${one}`);
  const hovertemplate = "%{text}<br>%{x:.5g}, %{y:.5g}<extra></extra>";
  const dots = { type: "scatter", mode: "markers", name: "trials", text: called(number), hovertemplate, marker: { size: 7, color: colour("--soft") } };
  const chosen = { type: "scatter", mode: "markers", name: "best", text: called([best]), hovertemplate, marker: { size: 13, color: colour("--other"), line: { width: 2, color: colour("--paper") } } };
  const line = { type: "scatter", line: { color: colour("--accent"), width: 2 }, hovertemplate };
  const look = { showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, margin: { l: 56, r: 18, t: 40, b: 50 } };
  const at = number.indexOf(best);
  draw("plot-tried", [
    { ...dots, x: number, y: value },
    { ...line, mode: "lines", name: "best so far", x: number, y: reached, line: { ...line.line, shape: "hv" }, text: called(number) },
    { ...chosen, x: [best], y: [value[at]] },
  ], layout(axis("trial", []), axis(objective, value), look));
  if (pair.length) draw("plot-tried-front", [
    { ...dots, x: all[0], y: all[1] },
    { ...line, mode: "lines+markers", name: "front", x: front[0], y: front[1], text: called(named) },
    { ...chosen, x: [all[0][at]], y: [all[1][at]] },
  ], layout(axis(pair[0], all[0]), axis(pair[1], all[1]), look));
}

function draw(id, traces, layout) {
  const place = document.getElementById(id);
  if (place) Plotly.react(place, traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

function drawAll() {
  if (figures.search && figures.search.number.length) tried();
  if (!figures.front) return;
  quality("plot-front", "latency_ms", "latency, ms", true);
  quality("plot-macs", "macs", "MACs", false);
  quality("plot-parameters", "parameters", "parameters", false);
  quality("plot-bytes", "bytes", "size, bytes", false);
  if (figures.latency.length) latency();
}

drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
