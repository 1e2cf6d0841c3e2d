// The browser's half of paste: pictures of the clipboard, and files dropped beside the drop zone, are put into the file uploader's own
// input, as if they had been chosen there.

const INPUT = '[data-testid="stFileUploaderDropzoneInput"]';
const ZONE = '[data-testid="stFileUploaderDropzone"]';
const HINT = 'or press Ctrl+V anywhere on this page';

function give(pictures) {
  const input = document.querySelector(INPUT);
  if (!input || !pictures.length) return false;
  const transfer = new DataTransfer();
  for (const picture of pictures) transfer.items.add(picture);
  input.files = transfer.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
  return true;
}

function named(blob, number) {
  const time = new Date().toTimeString().slice(0, 8).replaceAll(':', '.');
  return new File([blob], `pasted ${time}${number ? ` (${number + 1})` : ''}.${blob.type.split('/')[1].split('+')[0]}`, { type: blob.type });
}

function isPicture(blob) {
  return blob.type.startsWith('image/');
}

async function readClipboard() {
  const blobs = [];
  for (const item of await navigator.clipboard.read()) {
    const type = item.types.find((each) => each.startsWith('image/'));
    if (type) blobs.push(await item.getType(type));
  }
  return blobs.map(named);
}

export default function ({ parentElement }) {
  const button = parentElement.querySelector('button');
  const status = parentElement.querySelector('[role=status]');
  const tell = (text) => {
    if (status.textContent !== text) status.textContent = text;
  };
  button.hidden = !navigator.clipboard?.read; // Firefox asks each time, and no browser has it without https or localhost
  tell(button.hidden ? HINT.replace('or press', 'Press').concat(' to paste a picture') : HINT);

  button.onclick = async () => {
    try {
      tell(give(await readClipboard()) ? HINT : 'There is no picture in the clipboard.');
    } catch {
      tell('The browser does not allow it here: press Ctrl+V instead.');
    }
  };

  // In the capturing phase: the drop zone has an ear of its own while it has the focus, and would take the picture twice.
  const onPaste = (event) => {
    const pictures = [...(event.clipboardData?.files ?? [])].filter(isPicture).map(named);
    if (!give(pictures)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    tell(HINT);
  };

  // A file dropped beside the zone would be opened by the browser, and the page with all its answers be gone.
  const isOurs = (event) => event.dataTransfer?.types.includes('Files') && !event.composedPath().some((each) => each.matches?.(ZONE));
  const onDrag = (event) => {
    if (isOurs(event)) event.preventDefault();
  };
  const onDrop = (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    give([...event.dataTransfer.files]);
  };
  const ears = { paste: onPaste, dragover: onDrag, drop: onDrop };
  for (const [name, ear] of Object.entries(ears)) document.addEventListener(name, ear, true);
  return () => {
    for (const [name, ear] of Object.entries(ears)) document.removeEventListener(name, ear, true);
  };
}
