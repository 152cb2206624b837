"""The web page, in one piece. Names of classes, models and cameras reach it as text, never as HTML."""

from __future__ import annotations

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); --good: #2a9d5c;
  --wait: #c98a00; --bad: #d1453b; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 100rem; padding: .75rem; font: 16px/1.4 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; margin-bottom: .5rem; }
h1 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: .8rem; margin: 1rem 0 .25rem; opacity: .7; font-weight: 600; }
#engine { font-size: .8rem; padding: .05rem .5rem; border: 1px solid var(--line); border-radius: 1rem; }
#state { margin-left: auto; font-weight: 600; }
#state::before { content: ""; display: inline-block; width: .65rem; height: .65rem; border-radius: 50%;
  background: var(--wait); margin-right: .4rem; }
#state.good::before { background: var(--good); }
#state.bad::before { background: var(--bad); }
main { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 52rem) { main { grid-template-columns: minmax(0, 1fr) 20rem; } }
#view { background: #111; border-radius: .5rem; overflow: hidden; display: grid; place-items: center;
  min-height: 10rem; color: #bbb; }
#view > * { grid-area: 1 / 1; }
#picture { display: block; width: 100%; max-height: 82vh; object-fit: contain; }
#actions { display: flex; gap: .5rem; margin-top: .5rem; }
#actions > * { flex: 1; font: inherit; font-weight: 600; padding: .6rem; text-align: center; text-decoration: none;
  color: inherit; background: color-mix(in srgb, currentColor 10%, transparent); border: 1px solid var(--line);
  border-radius: .5rem; cursor: pointer; }
#numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(5.5rem, 1fr)); gap: .5rem; margin: 0; }
#numbers > div { border: 1px solid var(--line); border-radius: .5rem; padding: .35rem .5rem; }
dt { font-size: .72rem; opacity: .7; }
dd { margin: 0; white-space: nowrap; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { font-size: .72rem; font-weight: 400; opacity: .7; }
th, td { text-align: right; padding: .15rem 0; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
"""

_SCRIPT = """
"use strict";
const at = id => document.getElementById(id);
const say = (id, text) => { at(id).textContent = text; };
const number = (value, digits) => value === null ? "\\u2013" : value.toFixed(digits);
const STAGES = ["read", "preprocess", "infer", "decode", "sinks", "latency"];
const ENGINES = { emulated: "INT8 emulation", float: "float model", hailort: "Hailo chip" };
const MOST_CLASSES = 50;
let paused = false, lost = false;

function fill(id, rows) {
  at(id).replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells.map(text => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return days + " d " + hours % 24 + " h";
  if (hours) return hours + " h " + minutes % 60 + " m";
  return minutes ? minutes + " min" : Math.floor(seconds) + " s";
}

function state(words, kind) {
  say("state", words);
  at("state").className = kind;
}

function show(stats) {
  paused = stats.paused;
  say("model", stats.model.split("/").pop());
  say("engine", ENGINES[stats.engine] || stats.engine || "starting");
  say("fps", stats.fps.toFixed(1));
  say("latency", number(stats.stage_ms.latency.p50, 0) + " ms");
  say("temperature", stats.temperature_c === null ? "\\u2013" : stats.temperature_c.toFixed(0) + " \\u00b0C");
  say("frames", stats.frames);
  say("dropped", stats.dropped);
  say("reconnects", stats.reconnects);
  say("viewers", stats.web.viewers);
  say("uptime", duration(stats.uptime_s));
  say("source", stats.source);
  say("pause", paused ? "Resume" : "Pause");
  if (paused) state("paused", "");
  else if (stats.camera === "open") state("live", "good");
  else state(stats.camera, "bad");
  fill("stages", STAGES.filter(name => name in stats.stage_ms).map(
    name => [name, number(stats.stage_ms[name].p50, 1), number(stats.stage_ms[name].p95, 1)]));
  const classes = Object.entries(stats.by_class).slice(0, MOST_CLASSES);
  fill("classes", classes.map(([name, total]) => [name, stats.in_last_frame[name] || 0, total]));
  at("nothing").hidden = classes.length > 0;
}

function watch() {
  const picture = at("picture");
  if (document.hidden) picture.removeAttribute("src");
  else picture.src = "stream.mjpg?" + Date.now();
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("stats", { signal: AbortSignal.timeout(5000) });
      if (answer.status === 401) throw new Error("the token is no longer accepted");
      if (!answer.ok) throw new Error("error " + answer.status);
      show(await answer.json());
      if (lost) watch();
      lost = false;
    } catch (error) {
      lost = true;
      state(error.message.startsWith("the token") ? error.message : "no connection", "bad");
    }
  }
  setTimeout(poll, 1000);
}

at("pause").addEventListener("click", async () => {
  const body = JSON.stringify({ paused: !paused });
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("pause", { method: "POST", headers, body }).catch(() => null);
  if (answer === null || !answer.ok) return state("not done", "bad");
  paused = (await answer.json()).paused;
  say("pause", paused ? "Resume" : "Pause");
  if (paused) state("paused", "");
});
at("picture").addEventListener("error", () => { if (!document.hidden) setTimeout(watch, 2000); });
document.addEventListener("visibilitychange", watch);
watch();
poll();
"""

_BODY = """
<header>
<h1 id="model">hefkit</h1><span id="engine">starting</span><span id="state" role="status">connecting</span>
</header>
<main>
<section>
<div id="view"><span>no picture yet</span><img id="picture" alt="live picture with detections"></div>
<div id="actions"><button id="pause" type="button">Pause</button>
<a id="snapshot" href="snapshot.jpg" download>Snapshot</a></div>
</section>
<section>
<dl id="numbers">
<div><dt>frames / s</dt><dd id="fps"></dd></div>
<div><dt>latency</dt><dd id="latency"></dd></div>
<div><dt>chip</dt><dd id="temperature"></dd></div>
<div><dt>frames</dt><dd id="frames"></dd></div>
<div><dt>dropped</dt><dd id="dropped"></dd></div>
<div><dt>reconnects</dt><dd id="reconnects"></dd></div>
<div><dt>viewers</dt><dd id="viewers"></dd></div>
<div><dt>running</dt><dd id="uptime"></dd></div>
</dl>
<h2>Detections</h2>
<table><thead><tr><th>class</th><th>now</th><th>in total</th></tr></thead><tbody id="classes"></tbody></table>
<p id="nothing">nothing so far</p>
<h2>Milliseconds a frame</h2>
<table><thead><tr><th>stage</th><th>median</th><th>95 %</th></tr></thead><tbody id="stages"></tbody></table>
<h2>Source</h2>
<span id="source"></span>
</section>
</main>
"""

PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>hefkit live</title>\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
    f"<style>{_STYLE}</style>\n</head>\n<body>{_BODY}<script>{_SCRIPT}</script>\n</body>\n</html>\n"
)


def _hash(text: str) -> str:
    """What a policy calls an inline script or style that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
