// Draws the figures that the page carries as JSON. The page has no script of its own: its policy allows none.
(() => {
  const { figures, layout } = JSON.parse(document.getElementById("figures").textContent);
  if (typeof Plotly === "undefined") {
    document.getElementById("no-plotly").hidden = false;
    return;
  }
  for (const figure of figures) {
    const place = document.getElementById(figure.id);
    if (place) {
      Plotly.newPlot(place, figure.data, { ...layout, ...figure.layout }, { responsive: true, displayModeBar: false });
    }
  }
})();
