// The browser's half of photo: the heat map lies over the part of the photo that the model saw; the slider makes it fainter.

export default function ({ data, parentElement }) {
  const figure = parentElement.querySelector('.photo');
  const frame = figure.querySelector('.frame');
  const picture = figure.querySelector('.picture');
  const part = figure.querySelector('.part');
  const slider = figure.querySelector('input');
  const [left, top, width, height] = data.box.map((fraction) => `${100 * fraction}%`);
  const [pixels, rows] = data.size;

  frame.style.setProperty('--ratio', pixels / rows);
  if (picture.getAttribute('src') !== data.photo) picture.src = data.photo;
  picture.alt = data.description;
  picture.classList.toggle('tiny', Math.max(pixels, rows) <= 64);
  Object.assign(part.style, { left, top, width, height });
  part.querySelector('img').src = `data:image/png;base64,${data.heat}`;

  const blend = () => part.style.setProperty('--opacity', slider.value / 100);
  slider.oninput = blend;
  blend();
  const button = figure.querySelector('button');
  button.hidden = !document.fullscreenEnabled;
  button.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen());
}
