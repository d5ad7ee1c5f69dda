// The viewers of a comparison: both CTs, whose crosshairs show the same place by the registration. Comes after niivue.js.
"use strict";
(() => {
  const facts = JSON.parse(byId("facts").textContent);
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

  function goTo(side, mm) {
    const viewer = viewers[side];
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true).map((number) => Math.min(Math.max(number, 0), 1));
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function onMove(side, location) {
    showPosition(byId(`position-${side}`), viewers[side], facts.sides[side].to_slice, facts, location);
    if (moving || !byId("linked").checked || !viewers[otherSide(side)]) return;
    moving = true;
    goTo(otherSide(side), displace(fields[side], crosshairPlace(viewers[side])));
    moving = false;
  }

  // the ends of a row are set one by one: they are measured on these slices, the registration only comes near
  function goToRow(number) {
    moving = true;
    for (const side of SIDES) goTo(side, facts.lesions[number][side]);
    moving = false;
  }

  function choose(lesion) {
    chosen = lesion;
    if (!viewers.followup) return; // start() goes there
    goToRow(chosen);
    byId("viewer-baseline").scrollIntoView({ block: "nearest" });
  }

  async function startSide(side, library) {
    const nv = await startViewer(byId(`canvas-${side}`), `ct-${side}`, `labels-${side}`, facts, library);
    nv.setSliceType(library.SLICE_TYPE.AXIAL);
    nv.onLocationChange = (location) => onMove(side, location);
    byId(`state-${side}`).hidden = true;
    return nv;
  }

  async function start() {
    requireBrowser();
    makeRowsSelectable(choose);
    for (const side of SIDES) byId(`state-${side}`).textContent = "The viewer is starting …";
    const library = await loadLibrary();
    for (const side of SIDES) viewers[side] = await startSide(side, library);
    byId("plane").addEventListener("change", () => {
      for (const side of SIDES) viewers[side].setSliceType(library.SLICE_TYPE[byId("plane").value]);
    });
    byId("opacity").addEventListener("input", () => Object.values(viewers).forEach(showLabels));
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
