"""How the report looks, in light and dark; the figures' part goes into their own files as well."""

FIGURES = """
:root { --paper: #ffffff; --ink: #1c2128; --muted: #656d76; --grid: #e4e8ec; --card: #f6f8fa; --edge: #d5dbe1;
  --plain: #b8540a; --expanded: #1a62c5; --float: #4d7c2f; --f: #8250a8; --warn: #a4262c; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0f1318; --ink: #e4e8ec; --muted: #98a2ad; --grid: #262d35; --card: #171c23; --edge: #323a44;
    --plain: #f0a35e; --expanded: #6fb0ff; --float: #9ccb74; --f: #c99bee; --warn: #ff8f8f; } }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
svg text.tick, svg text.name { fill: var(--muted); font-size: 11.5px; }
svg text.name { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg text.strong { font-weight: 600; }
.plain { color: var(--plain); } .expanded { color: var(--expanded); } .float { color: var(--float); }
.f { color: var(--f); } .published { color: var(--muted); }
.grid { stroke: var(--grid); } .axis { stroke: var(--muted); }
.mark { stroke: var(--muted); stroke-dasharray: 4 3; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line.dotted { stroke-width: 1.3; stroke-dasharray: 2 3; } .line.thin { stroke-width: 1.2; }
.line.published { stroke-width: 1.2; stroke-dasharray: 5 3; }
.thin { stroke: currentColor; stroke-width: 1.2; }
.band { fill: currentColor; opacity: 0.17; }
.dot, .key, .bar { fill: currentColor; }
.ring { fill: var(--paper); stroke: currentColor; stroke-width: 2; }
""".strip()

PAGE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 40px 0 10px; }
h3 { font-size: 1rem; margin: 28px 0 8px; }
p { margin: 8px 0; max-width: 75ch; }
.muted, figcaption { color: var(--muted); }
.verdict { font-size: 1.08rem; }
.warn { border-left: 4px solid var(--warn); padding: 6px 14px; background: var(--card); overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin: 18px 0; }
.tile { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; }
.tile small { font-size: 0.85rem; font-weight: 400; color: var(--muted); white-space: nowrap; }
.tile span { display: block; color: var(--muted); font-size: 0.82rem; line-height: 1.35; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 22px; }
figure { margin: 0; min-width: 0; }
figure > b { display: block; margin-bottom: 2px; }
figure > svg { width: 100%; height: auto; max-width: 620px; display: block; }
figcaption { font-size: 0.83rem; line-height: 1.4; margin-top: 2px; max-width: 60ch; }
.codes { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 6px 10px; }
.codes svg { width: 100%; height: auto; }
.wide { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px 4px 0; text-align: left; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { font-weight: 600; color: var(--muted); vertical-align: bottom; }
thead th { white-space: normal; min-width: 7ch; line-height: 1.3; }
td.n, th.n { text-align: right; }
tr.total td { font-weight: 600; border-top: 1px solid var(--muted); }
.confusion td, .confusion th { text-align: center; padding: 3px 6px; border: 1px solid var(--grid); min-width: 2.2em; }
.confusion th { font-size: 0.78rem; white-space: nowrap; }
.errors { display: flex; flex-wrap: wrap; gap: 10px; }
.errors div { width: 84px; font-size: 0.75rem; line-height: 1.3; color: var(--muted); }
.errors img { width: 84px; height: 84px; image-rendering: pixelated; border-radius: 4px; display: block; }
details { margin: 10px 0; }
details.point { border: 1px solid var(--edge); border-radius: 10px; padding: 4px 16px; }
summary { cursor: pointer; padding: 6px 0; font-weight: 600; }
summary span { font-weight: 400; color: var(--muted); }
.keys span { margin-right: 16px; } .keys i { display: inline-block; width: 14px; height: 4px; vertical-align: middle;
  margin-right: 6px; background: currentColor; } .keys b { font-weight: 400; color: var(--ink); }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 10px 12px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 0.8rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
""".strip()
