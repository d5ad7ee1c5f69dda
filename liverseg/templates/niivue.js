// What the pages with NiiVue share: unpacking of what a page holds, the library, colours and texts.
"use strict";

const byId = (id) => document.getElementById(id);

const VIEWER_OPTIONS = {
  logLevel: "warn",
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  crosshairColor: [0.5, 1, 0.5, 0.7],
  crosshairWidth: 0.8,
  crosshairWidthUnit: "mm",
  crosshairGap: 12,
  fontColor: [0.9, 0.9, 0.9, 1],
  showAllOrientationMarkers: true,
  dragAndDropEnabled: false,
  loadingText: "",
};

async function unpack(id) {
  const element = byId(id);
  const letters = atob(element.textContent);
  element.remove(); // frees megabytes
  const packed = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place += 1) packed[place] = letters.charCodeAt(place);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
}

async function loadLibrary() {
  const source = await (await unpack("library")).text();
  return new Promise((resolve, reject) => {
    window.addEventListener("niivue", (event) => resolve(event.detail), { once: true });
    // an inline module: pages on disk may not import from anywhere
    const script = document.createElement("script");
    script.type = "module";
    script.textContent = source;
    document.head.append(script);
    setTimeout(() => reject(new Error("its library did not start")), 30000);
  });
}

function labelColors(labels) {
  const column = (place) => labels.map((label) => label.color[place]);
  return {
    R: column(0),
    G: column(1),
    B: column(2),
    // the liver is only outlined, so that its tissue stays visible
    A: labels.map((label) => (label.index < 2 ? 0 : 255)),
    I: labels.map((label) => label.index),
    labels: labels.map((label) => label.name),
  };
}

function describeHu(value, [low, high]) {
  const integer = (number) => String(Math.round(number)).replace("-", "−");
  if (value <= low) return `≤ ${integer(low)} HU`;
  return value >= high ? `≥ ${integer(high)} HU` : `${integer(value)} HU`;
}

// a point in the patient's frame, RAS+ mm
function describePlace(x, y, z) {
  const side = (value, plus, minus) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(0)}`;
  return `${side(x, "R", "L")}  ${side(y, "A", "P")}  ${side(z, "S", "I")} mm`;
}
