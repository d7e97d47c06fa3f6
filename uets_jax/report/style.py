"""The style sheet of the report: light, dark, narrow and printed."""

# Okabe and Ito's colour-blind-safe palette, darker for white, lighter for dark paper.
LIGHT = ("#0072b2", "#d55e00", "#00866a", "#b8558f", "#b07a00", "#3b93c9", "#6b6b6b")
DARK = ("#56b4e9", "#ff8a4c", "#2cc79b", "#e59cc7", "#f0c04a", "#a9d4f5", "#a8a8a8")
LAST = ("#7a4b1e", "#d9a978")
COLORS = len(LIGHT) + 1  # classes c0 .. c7


def _variables(colors: tuple[str, ...]) -> str:
    return "".join(f"--c{i}:{color};" for i, color in enumerate(colors))


_CLASSES = "".join(f".c{i}{{--c:var(--c{i})}}" for i in range(COLORS))

CSS = (
    f":root{{{_variables((*LIGHT, LAST[0]))}"
    "--ink:#1c2126;--soft:#5d6670;--rule:#e1e5e9;--paper:#fff;--tint:#f5f7f9;"
    "--warn:#fff6e0;--edge:#d9a514}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables((*DARK, LAST[1]))}"
    "--ink:#e4e8ec;--soft:#9aa5b0;--rule:#30373e;--paper:#15191d;--tint:#1d2328;"
    "--warn:#2c2612;--edge:#b98d13}}\n"
    + _CLASSES
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
 sans-serif}
main,footer{max-width:960px;margin:0 auto;padding:0 24px}
header{padding:48px 0 8px}
h1{font-size:2.1rem;line-height:1.15;letter-spacing:-.02em;margin:0 0 12px;
 overflow-wrap:anywhere}
h2{font-size:1.25rem;letter-spacing:-.01em;margin:0 0 14px}
h3{font-size:1rem;margin:22px 0 8px;overflow-wrap:anywhere}
section{margin:48px 0 0}
.lead{font-size:1.12rem;color:var(--soft);margin:0;max-width:44em}
.lead strong,.lead em{color:var(--ink);font-style:normal;font-weight:600}
.note{color:var(--soft);font-size:.875rem;margin:0 0 12px}
.warn{margin:20px 0 0;padding:10px 16px 10px 34px;background:var(--warn);
 border-left:3px solid var(--edge);border-radius:4px;font-size:.9rem;
 overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:1px;margin:28px 0 0;
 background:var(--rule);border:1px solid var(--rule);border-radius:8px;overflow:hidden}
.tiles div{background:var(--paper);padding:16px 18px 14px}
.tiles span,.tiles small{display:block;color:var(--soft);font-size:.82rem}
.tiles b{display:block;font-size:1.7rem;line-height:1.3;font-weight:600;
 letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tiles div:first-child b{color:var(--c0)}
.tiles small{min-height:1.55em}
figure{margin:0 0 28px}
figcaption{display:inline-block;font-weight:600;font-size:.95rem;margin:0 14px 10px 0}
figure input{position:absolute;opacity:0;pointer-events:none}
figure label{display:inline-block;font-size:.8rem;color:var(--soft);cursor:pointer;
 padding:1px 9px;border:1px solid var(--rule);margin-left:-1px}
figure input+label{border-radius:0 5px 5px 0}
figure .to-linear+label{border-radius:5px 0 0 5px}
figure input:checked+label{background:var(--tint);color:var(--ink);font-weight:600}
figure input:focus-visible+label{outline:2px solid var(--c0)}
.to-linear:checked~.log,.to-log:checked~.linear{display:none}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr));
 gap:0 32px}
.pair>*{min-width:0;margin-bottom:12px}
.narrow{display:none}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .end{text-anchor:end}
svg .mid{text-anchor:middle}
svg .label{font-weight:600;fill:var(--c)}
.grid{stroke:var(--rule);stroke-width:1}
.base{stroke:var(--soft);stroke-width:1;opacity:.6}
svg path{fill:none;stroke:var(--c);stroke-linejoin:round;stroke-linecap:round}
.faint{stroke-width:1;opacity:.28}
.line{stroke-width:2}
.marks{stroke-width:1.2;stroke-dasharray:3 4}
.dot{fill:var(--paper);stroke:var(--c);stroke-width:1.8}
.dot:hover{fill:var(--c)}
.heat{shape-rendering:crispEdges}
.heat rect{fill:var(--c0)}
.heat .void{fill:none;stroke:var(--soft);stroke-width:.6;stroke-dasharray:2 2}
.parting{stroke:var(--paper);stroke-width:2}
.heat rect:hover{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:none}
.mark line{stroke:var(--c);stroke-width:1;stroke-dasharray:1 3;opacity:.9}
.mark .hit{stroke:transparent;stroke-width:9;stroke-dasharray:none}
svg .mark text{font-size:11px;fill:var(--c);paint-order:stroke;stroke:var(--paper);
 stroke-width:3px;stroke-linejoin:round}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;padding:0;
 margin:0 0 2px;font-size:.9rem;overflow-wrap:anywhere}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:50%;
 background:var(--c);margin-right:.5em;print-color-adjust:exact;
 -webkit-print-color-adjust:exact}
.scroll{overflow-x:auto;margin:0 0 12px}
.scroll:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.9rem;
 font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:7px 16px 7px 0;
 border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--soft);font-weight:500;font-size:.82rem;vertical-align:bottom}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:7em}
tbody th:has(.swatch){min-width:10.5em}
.figures td,.figures thead th+th{text-align:right;white-space:nowrap}
.figures small{display:block;color:var(--soft);font-size:.82rem}
.shares tbody tr:last-child>*{border-bottom:0;font-weight:600}
.shares small{display:inline;margin-left:.7em}
.shares tbody th,.shares thead th:first-child{width:30%}
.bar{display:block;min-width:5em;height:3px;margin-top:4px;background:var(--rule);border-radius:2px}
.bar i{display:block;height:3px;background:var(--c);border-radius:2px;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
 monospace}
code{font-size:.84em;overflow-wrap:anywhere}
.settings th,.settings td{padding-top:5px;padding-bottom:5px}
.settings tbody th{white-space:nowrap;font-weight:400;width:1%;padding-right:32px}
.events th,.events td{white-space:nowrap}
.events td:last-child{white-space:normal;min-width:14em;overflow-wrap:anywhere}
.changes td:nth-child(2){text-align:left;white-space:normal;min-width:11em;
 overflow-wrap:anywhere}
.changes thead th:nth-child(2){text-align:left}
.changes tbody th{min-width:0;white-space:nowrap}
.sample{white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 12px;padding:14px 18px;
 background:var(--tint);border-radius:8px;font-size:.84rem;line-height:1.6}
.sample b{color:var(--c0);font-weight:600}
details{border:1px solid var(--rule);border-radius:8px;margin:10px 0;padding:0 16px}
summary{cursor:pointer;padding:10px 0;font-size:.92rem;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:.8rem;padding-top:48px;padding-bottom:40px}
@media (max-width:640px){
 main,footer{padding-left:16px;padding-right:16px}
 header{padding-top:28px}
 h1{font-size:1.6rem}
 section{margin-top:36px}
 .tiles{grid-template-columns:repeat(2,1fr)}
 .tiles div{padding:12px 14px 10px}
 .tiles b{font-size:1.35rem}
 figcaption{display:block;margin-bottom:6px}
 figure label{margin-bottom:8px}
 .wide{display:none}
 .narrow{display:block}
 th,td{padding-right:12px}
 tbody th{min-width:7.5em;position:sticky;left:0;background:var(--paper)}
}
@media print{
 :root{color-scheme:light;--ink:#000;--soft:#444;--rule:#ccc;--paper:#fff;
 --tint:#f4f4f4;--warn:#fff;"""
    + _variables((*LIGHT, LAST[0]))
    + """}
 @page{margin:14mm}
 body{font-size:10pt;line-height:1.4}
 main,footer{max-width:none;padding:0}
 header{padding-top:0}
 section{margin-top:22px}
 .tiles{margin-top:14px}
 .tiles div{padding:7px 14px}
 .tiles b{font-size:1.3rem}
 .pair{grid-template-columns:1fr 1fr;gap:0 20px}
 figure{margin-bottom:14px}
 figure,.tiles,.sample,tr,.warn,.legend,.note,.figures{break-inside:avoid}
 thead{display:table-header-group}
 h2,h3,figcaption,.legend,.note:has(+figure){break-after:avoid}
 figure input+label,.hit,.unprinted{display:none}
 details{border:0;padding:0}
 details::details-content{content-visibility:visible;block-size:auto}
 .scroll{overflow:visible}
 table{font-size:9pt}
 th,td{padding:4px 10px 4px 0}
 .settings th,.settings td{padding-top:1px;padding-bottom:1px}
}
"""
)
