// The browser's half of live_plot: loads plotly.js once, draws and updates with Plotly.react, reports clicks.
// Streamlit calls the default export on mount and at every change of data or theme; what it returns is called on unmount.

const CONFIG = {
  displaylogo: false,
  modeBarButtons: [['toImage', 'resetScale2d']],
};

function loadPlotly(url) {
  window.__cifarTlPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = url;
    script.onload = () => (window.Plotly ? resolve(window.Plotly) : reject());
    script.onerror = reject;
    document.head.append(script);
  }).catch((error) => {
    window.__cifarTlPlotly = undefined; // the next update tries again
    throw error;
  });
  return window.__cifarTlPlotly;
}

// Theme colours arrive as CSS (`var(--st-text-color)`, `color-mix(...)`); Plotly reads only plain colours. A canvas
// pixel turns whatever the browser understands into one.
function colourResolver(host) {
  const probe = document.createElement('span');
  host.append(probe);
  const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const resolve = (css) => {
    if (!known.has(css)) {
      probe.style.color = css;
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = getComputedStyle(probe).color;
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      known.set(css, `rgba(${r},${g},${b},${(a / 255).toFixed(3)})`);
    }
    return known.get(css);
  };
  const walk = (value) => {
    if (typeof value === 'string') return /^(var|color-mix)\(/.test(value) ? resolve(value) : value;
    if (Array.isArray(value)) return value.map(walk);
    if (value && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, walk(inner)]));
    }
    return value;
  };
  return { walk, done: () => probe.remove() };
}

function themedLayout(layout, revision, height, font) {
  const axis = { gridcolor: 'var(--st-border-color)', zerolinecolor: 'var(--st-border-color)', automargin: true };
  const themed = {
    ...layout,
    height,
    autosize: true,
    uirevision: revision,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { color: 'var(--st-text-color)', family: font, size: 13, ...layout.font },
    hoverlabel: {
      bgcolor: 'var(--st-secondary-background-color)',
      bordercolor: 'var(--st-border-color)',
      font: { color: 'var(--st-text-color)', family: font },
      align: 'left',
      ...layout.hoverlabel,
    },
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: 'var(--st-gray-color)', activecolor: 'var(--st-text-color)', ...layout.modebar },
  };
  for (const name of ['xaxis', 'yaxis', ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))]) {
    themed[name] = { ...axis, ...layout[name] };
  }
  return themed;
}

function draw(Plotly, host) {
  const { data } = host.latest;
  const style = getComputedStyle(host);
  const colours = colourResolver(host);
  const layout = colours.walk(themedLayout(data.layout, data.revision, data.height, style.getPropertyValue('--st-font').trim()));
  const traces = colours.walk(data.traces);
  colours.done();
  Plotly.react(host, traces, layout, CONFIG);
  if (!host.isListening) {
    host.isListening = true;
    host.on('plotly_click', ({ points: [point] }) =>
      host.latest.setStateValue('clicked', { x: point.x, y: point.y, z: point.z ?? null, curve: point.curveNumber }),
    );
    // The sidebar changes our width without a resize of the window.
    host.resizing = new ResizeObserver(() => host.clientWidth > 0 && Plotly.Plots.resize(host));
    host.resizing.observe(host.parentElement);
  }
}

export default function ({ data, parentElement, setStateValue }) {
  const host = parentElement.querySelector('.cifar-tl-plot');
  const error = parentElement.querySelector('.cifar-tl-plot-error');
  host.latest = { data, setStateValue };
  host.setAttribute('aria-label', data.description);
  host.style.height = `${data.height}px`;
  loadPlotly(data.script).then(
    (Plotly) => {
      if (!host.isConnected) return;
      error.hidden = true;
      host.hidden = false;
      draw(Plotly, host);
    },
    () => {
      host.hidden = true;
      error.textContent = 'The chart cannot be drawn: the file plotly.min.js did not load. Restart the dashboard, then reload this page.';
      error.hidden = false;
    },
  );
  return () => {
    host.resizing?.disconnect();
    host.isListening = false;
    if (window.Plotly) window.Plotly.purge(host);
  };
}
