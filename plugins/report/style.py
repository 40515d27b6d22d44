"""The style of the page: light and dark, on a screen and on paper. Pure."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --paper: #fff;
  --ground: #f6f8fa; --line: #d0d7de; --one: #0a58ca; --two: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9da7b1; --paper: #161b22; --ground: #0d1117;
    --line: #30363d; --one: #58a6ff; --two: #f0a040; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem; font: 1rem/1.6 system-ui, sans-serif; color: var(--ink);
  background: var(--ground); }
main { max-width: 72rem; margin: 0 auto; }
h1, h2, h3 { line-height: 1.3; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; }
h3 { font-size: 1.1rem; }
.figure h2 { font-size: 1.1rem; }
.period, footer, .robots, caption { color: var(--soft); }
.campaign { margin-top: 2rem; }
.figure { margin: 1rem 0; padding: 1rem 1.25rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; }
.figure > :first-child { margin-top: 0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.2rem, 1fr)); gap: .75rem;
  margin: 1rem 0; }
dl div { padding: .75rem 1rem; background: var(--paper); border: 1px solid var(--line);
  border-radius: .75rem; }
dt { color: var(--soft); font-size: .9rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dd small { display: block; min-height: 1.6em; color: var(--soft); font-size: .9rem;
  font-weight: 400; }
.chart { max-width: 44rem; margin-bottom: .75rem; }
.pair .parts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.pair .chart { flex: 3 1 26rem; }
.pair .table { flex: 1 1 16rem; }
.figure caption { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .label { fill: var(--soft); }
svg .one { fill: var(--one); }
svg .two { fill: var(--two); }
svg .axis { stroke: var(--line); }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
caption { text-align: left; padding: .5rem 0; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 8rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --ground: #fff; --line: #bbb;
    --one: #0a58ca; --two: #b45309; }
  body { padding: 0; font-size: 10pt; }
  .figure, dl { break-inside: avoid; }
  .campaign + .campaign { break-before: page; }
  svg, .one, .two { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .table { overflow: visible; }
}
"""
