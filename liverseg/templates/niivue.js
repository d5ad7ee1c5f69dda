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

// the slider sets the opacity of outlines; lesions are filled with half of it
function labelStrength() {
  const outline = Number(byId("opacity").value);
  return { outline, filled: outline / 2 };
}

function showLabels(viewer) {
  const { outline, filled } = labelStrength();
  viewer.opts.atlasOutline = outline;
  viewer.setOpacity(1, filled);
}

// the crosshair's place; NiiVue reads positions off a grid that is not tilted, this one is in the patient's frame
function crosshairPlace(viewer) {
  return viewer.frac2mm(viewer.scene.crosshairPos, 0, true);
}

function showPosition(output, viewer, toSlice, facts, location) {
  const [x, y, z] = crosshairPlace(viewer);
  const [a, b, c, d] = toSlice;
  const parts = [`slice ${Math.round(a * x + b * y + c * z + d)}`, describePlace(x, y, z)];
  if (location && location.values && location.values.length > 1) {
    const label = facts.labels.find((entry) => entry.index === Math.round(location.values[1].value));
    parts.push(describeHu(location.values[0].value, facts.window_hu));
    if (label && label.index > 0) parts.push(label.name);
  }
  output.textContent = parts.join(" · ");
  output.dataset.ras = [x, y, z].join(",");
}

function moveByKey(viewer, event) {
  // radiological convention: the screen's left is the patient's right
  const steps = {
    ArrowLeft: [1, 0, 0],
    ArrowRight: [-1, 0, 0],
    ArrowUp: [0, 1, 0],
    ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };
  // NiiVue's own keys change things that the page does not explain
  if (event.key !== "Tab") event.stopImmediatePropagation();
  if (!(event.key in steps)) return;
  viewer.moveCrosshairInVox(...steps[event.key]);
  event.preventDefault();
}

// rows of the lesion table are chosen by click, or by arrow keys and Enter
function makeRowsSelectable(onChoose) {
  const rows = [...document.querySelectorAll("tr[data-lesion]")];
  if (!rows.length) return;

  function choose(row) {
    for (const other of rows) {
      other.setAttribute("aria-selected", String(other === row));
      other.tabIndex = other === row ? 0 : -1;
    }
    onChoose(row.dataset.lesion);
  }

  function onRowKey(event, index) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key === "Enter" || event.key === " ") {
      choose(rows[index]);
    } else if (event.key in steps) {
      const next = rows[index + steps[event.key]];
      if (!next) return;
      rows[index].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  byId("lesions").setAttribute("role", "grid");
  byId("choose").hidden = false;
  rows.forEach((row, index) => {
    row.classList.add("selectable");
    row.setAttribute("aria-selected", "false");
    row.tabIndex = index === 0 ? 0 : -1;
    row.addEventListener("click", () => choose(row));
    row.addEventListener("keydown", (event) => onRowKey(event, index));
  });
}

function requireBrowser() {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL2");
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old");
}

// a viewer with a CT and its labels, on a canvas of the page
async function startViewer(canvas, ctId, labelsId, facts, { Niivue, NVImage, DRAG_MODE }) {
  const viewer = new Niivue({ ...VIEWER_OPTIONS, dragMode: DRAG_MODE.none });
  canvas.addEventListener("keydown", (event) => moveByKey(viewer, event), true);
  canvas.hidden = false;
  await viewer.attachToCanvas(canvas);
  const ct = await NVImage.new(await (await unpack(ctId)).arrayBuffer(), "ct.nii", "gray");
  [ct.cal_min, ct.cal_max] = facts.window_hu;
  viewer.addVolume(ct);
  // set before the labels are added: without a graphics card every later change takes seconds
  const { outline, filled } = labelStrength();
  viewer.opts.atlasOutline = outline;
  const labels = await NVImage.new(await (await unpack(labelsId)).arrayBuffer(), "labels.nii", "gray", filled);
  labels.setColormapLabel(labelColors(facts.labels));
  viewer.addVolume(labels);
  return viewer;
}
