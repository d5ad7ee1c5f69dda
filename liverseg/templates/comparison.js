// The viewers of a comparison: both CTs, whose crosshairs show the same place by the registration. Comes after niivue.js.
"use strict";
(() => {
  const facts = JSON.parse(byId("facts").textContent);
  const rows = [...document.querySelectorAll("tr[data-lesion]")];
  const SIDES = ["baseline", "followup"];
  const viewers = {};
  let chosen = null;
  let moving = false;

  const otherSide = (side) => SIDES[1 - SIDES.indexOf(side)];

  // displacements in tenths of a millimetre, int16, on a grid in the patient's frame: x runs fastest, then y, then z
  function unpackField({ origin, step, size, vectors }) {
    const letters = atob(vectors);
    const bytes = new Uint8Array(letters.length);
    for (let place = 0; place < letters.length; place += 1) bytes[place] = letters.charCodeAt(place);
    return { origin, step, size, vectors: new Int16Array(bytes.buffer) };
  }

  // trilinear, constant beyond the edge
  function displace({ origin, step, size, vectors }, mm) {
    const low = [], share = [];
    for (let axis = 0; axis < 3; axis += 1) {
      const place = Math.min(Math.max((mm[axis] - origin[axis]) / step, 0), size[axis] - 1);
      low[axis] = Math.min(Math.floor(place), Math.max(size[axis] - 2, 0));
      share[axis] = place - low[axis];
    }
    const moved = [...mm];
    for (let corner = 0; corner < 8; corner += 1) {
      let weight = 1;
      const index = [];
      for (let axis = 0; axis < 3; axis += 1) {
        const upper = (corner >> axis) & 1;
        weight *= upper ? share[axis] : 1 - share[axis];
        index[axis] = Math.min(low[axis] + upper, size[axis] - 1);
      }
      const start = 3 * ((index[2] * size[1] + index[1]) * size[0] + index[0]);
      for (let axis = 0; axis < 3; axis += 1) moved[axis] += (weight * vectors[start + axis]) / 10;
    }
    return moved;
  }

  const fields = {
    baseline: unpackField(facts.sides.baseline.field),
    followup: unpackField(facts.sides.followup.field),
  };

  const place = (side) => viewers[side].frac2mm(viewers[side].scene.crosshairPos, 0, true);

  function show(side, location) {
    const [x, y, z] = place(side);
    const [a, b, c, d] = facts.sides[side].to_slice;
    const parts = [`slice ${Math.round(a * x + b * y + c * z + d)}`, describePlace(x, y, z)];
    if (location && location.values && location.values.length > 1) {
      const label = facts.labels.find((entry) => entry.index === Math.round(location.values[1].value));
      parts.push(describeHu(location.values[0].value, facts.window_hu));
      if (label && label.index > 0) parts.push(label.name);
    }
    const output = byId(`position-${side}`);
    output.textContent = parts.join(" · ");
    output.dataset.ras = [x, y, z].join(",");
  }

  function goTo(side, mm) {
    const viewer = viewers[side];
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true).map((number) => Math.min(Math.max(number, 0), 1));
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function onMove(side, location) {
    show(side, location);
    if (moving || !byId("linked").checked || !viewers[otherSide(side)]) return;
    moving = true;
    goTo(otherSide(side), displace(fields[side], place(side)));
    moving = false;
  }

  // the ends of a row are set one by one: they are measured on these slices, the registration only comes near
  function goToRow(number) {
    moving = true;
    for (const side of SIDES) goTo(side, facts.lesions[number][side]);
    moving = false;
  }

  function choose(row) {
    chosen = row.dataset.lesion;
    for (const other of rows) {
      other.setAttribute("aria-selected", String(other === row));
      other.tabIndex = other === row ? 0 : -1;
    }
    if (!viewers.followup) return; // start() goes there
    goToRow(chosen);
    byId("viewer-baseline").scrollIntoView({ block: "nearest" });
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

  function makeRowsSelectable() {
    if (!rows.length) return;
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

  function onViewerKey(side, event) {
    // radiological convention: the screen's left is the patient's right
    const steps = {
      ArrowLeft: [1, 0, 0],
      ArrowRight: [-1, 0, 0],
      ArrowUp: [0, 1, 0],
      ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1],
      PageDown: [0, 0, -1],
    };
    // NiiVue's own keys change things that this page does not explain
    if (event.key !== "Tab") event.stopImmediatePropagation();
    if (!(event.key in steps)) return;
    viewers[side].moveCrosshairInVox(...steps[event.key]);
    event.preventDefault();
  }

  function labelStrength() {
    const outline = Number(byId("opacity").value);
    return { outline, filled: outline / 2 };
  }

  async function startSide(side, { Niivue, NVImage, SLICE_TYPE, DRAG_MODE }) {
    const canvas = byId(`canvas-${side}`);
    const nv = new Niivue({ ...VIEWER_OPTIONS, dragMode: DRAG_MODE.none });
    canvas.addEventListener("keydown", (event) => onViewerKey(side, event), true);
    canvas.hidden = false;
    await nv.attachToCanvas(canvas);
    const ct = await NVImage.new(await (await unpack(`ct-${side}`)).arrayBuffer(), "ct.nii", "gray");
    [ct.cal_min, ct.cal_max] = facts.window_hu;
    nv.addVolume(ct);
    // set before the labels are added: without a graphics card every later change takes seconds
    const { outline, filled } = labelStrength();
    nv.opts.atlasOutline = outline;
    const packed = await (await unpack(`labels-${side}`)).arrayBuffer();
    const labels = await NVImage.new(packed, "labels.nii", "gray", filled);
    labels.setColormapLabel(labelColors(facts.labels));
    nv.addVolume(labels);
    nv.setSliceType(SLICE_TYPE.AXIAL);
    nv.onLocationChange = (location) => onMove(side, location);
    byId(`state-${side}`).hidden = true;
    return nv;
  }

  async function start() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL2");
    if (!("DecompressionStream" in window)) throw new Error("this browser is too old");
    makeRowsSelectable();
    for (const side of SIDES) byId(`state-${side}`).textContent = "The viewer is starting …";
    const library = await loadLibrary();
    for (const side of SIDES) viewers[side] = await startSide(side, library);
    byId("plane").addEventListener("change", () => {
      for (const side of SIDES) viewers[side].setSliceType(library.SLICE_TYPE[byId("plane").value]);
    });
    byId("opacity").addEventListener("input", () => {
      const { outline, filled } = labelStrength();
      for (const side of SIDES) {
        viewers[side].opts.atlasOutline = outline;
        viewers[side].setOpacity(1, filled);
      }
    });
    byId("controls").hidden = false;
    const first = chosen ?? Object.keys(facts.lesions)[0];
    if (first) goToRow(first);
    else goTo("baseline", viewers.baseline.frac2mm([0.5, 0.5, 0.5], 0, true).slice(0, 3));
    for (const side of SIDES) byId(`viewer-${side}`).dataset.ready = "yes";
  }

  start().catch((error) => {
    for (const side of SIDES) {
      byId(`canvas-${side}`).hidden = true;
      byId(`state-${side}`).hidden = false;
      byId(`state-${side}`).textContent =
        `The viewer did not start: ${error.message}. It needs WebGL2; table and pictures are complete without it.`;
      byId(`viewer-${side}`).dataset.ready = "no";
    }
  });
})();
