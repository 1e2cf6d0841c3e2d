// The browser's half of thumbnails: one sprite as a Blob URL (a data URI in a CSS variable takes seconds), one button a tile.

function show(grid, data) {
  const { tile, columns } = data;
  const bytes = Uint8Array.from(atob(data.png), (character) => character.charCodeAt(0));
  if (grid.spriteUrl) URL.revokeObjectURL(grid.spriteUrl);
  grid.spriteUrl = URL.createObjectURL(new Blob([bytes], { type: 'image/png' }));
  grid.classList.toggle('pixelated', data.is_pixelated);
  grid.style.setProperty('--sprite', `url(${grid.spriteUrl})`);
  grid.style.setProperty('--sheet', `${columns * tile}px ${data.rows * tile}px`);
  grid.style.setProperty('--tile', `${tile}px`);
  grid.replaceChildren(...data.captions.map((caption, index) => button(grid, data, caption, index)));
}

function button(grid, { tile, columns, revision }, caption, index) {
  const element = document.createElement('button');
  const lines = caption.split('\n');
  element.type = 'button';
  element.title = lines.join('\n');
  element.ariaLabel = lines.join(', ');
  element.ariaPressed = 'false';
  const picture = document.createElement('i');
  picture.style.backgroundPosition = `${-(index % columns) * tile}px ${-Math.floor(index / columns) * tile}px`;
  element.append(picture, ...lines.map((line) => Object.assign(document.createElement('span'), { textContent: line })));
  element.onclick = () => {
    for (const other of grid.children) other.ariaPressed = String(other === element);
    grid.setStateValue('selected', { index, revision });
  };
  return element;
}

export default function ({ data, parentElement, setStateValue }) {
  const grid = parentElement.querySelector('.grid');
  grid.setStateValue = setStateValue;
  // A click reruns the fragment, which sends the same images again: they stay as they are, and so does the focus.
  if (grid.shown?.revision !== data.revision || grid.shown?.png !== data.png) {
    grid.shown = data;
    show(grid, data);
  }
  return () => {
    if (grid.spriteUrl) URL.revokeObjectURL(grid.spriteUrl);
    grid.shown = grid.spriteUrl = undefined;
  };
}
