// Draws the figures that the page carries as JSON. The page has no script of its own: its policy allows none.
(() => {
  const { figures, layout, dark_ink, is_lazy } = JSON.parse(document.getElementById("figures").textContent);
  if (typeof Plotly === "undefined") {
    document.getElementById("no-plotly").hidden = false;
    return;
  }
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = () => (dark_ink && scheme.matches ? dark_ink : layout.font.color);
  const drawn = [];

  function draw(place, figure) {
    const font = { ...layout.font, color: ink() };
    Plotly.newPlot(place, figure.data, { ...layout, font, ...figure.layout }, { responsive: true, displayModeBar: false });
    drawn.push(place);
  }

  const waiting = new Map();
  for (const figure of figures) {
    const place = document.getElementById(figure.id);
    if (place && is_lazy) waiting.set(place, figure);
    else if (place) draw(place, figure);
  }
  if (dark_ink) scheme.addEventListener("change", () => drawn.forEach((place) => Plotly.relayout(place, { "font.color": ink() })));
  if (!waiting.size) return;
  // A picture a world is many: each is drawn shortly before it is seen, all before a print.
  const watch = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawWaiting(entry.target)),
    { rootMargin: "600px" },
  );
  function drawWaiting(place) {
    watch.unobserve(place);
    if (waiting.has(place)) draw(place, waiting.get(place));
    waiting.delete(place);
  }
  waiting.forEach((_figure, place) => watch.observe(place));
  window.addEventListener("beforeprint", () => [...waiting.keys()].forEach(drawWaiting));
})();
