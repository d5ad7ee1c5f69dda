// The viewer of a report: shows CT and labels, and moves to the lesion chosen in the table. Comes after niivue.js.
"use strict";
(() => {
  const facts = JSON.parse(byId("facts").textContent);
  const rows = [...document.querySelectorAll("tr[data-lesion]")];
  let viewer = null;
  let chosen = null;

  // NiiVue reads positions off a grid that is not tilted; this one is in the patient's frame, tilted CTs included
  function showPosition(location) {
    const [x, y, z] = viewer.frac2mm(viewer.scene.crosshairPos, 0, true);
    const [a, b, c, d] = facts.to_slice;
    const parts = [`slice ${Math.round(a * x + b * y + c * z + d)}`, describePlace(x, y, z)];
    if (location && location.values && location.values.length > 1) {
      const label = facts.labels.find((entry) => entry.index === Math.round(location.values[1].value));
      parts.push(describeHu(location.values[0].value, facts.window_hu));
      if (label && label.index > 0) parts.push(label.name);
    }
    byId("position").textContent = parts.join(" · ");
    byId("position").dataset.ras = [x, y, z].join(",");
  }

  function goTo(mm) {
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true);
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function choose(row) {
    chosen = row.dataset.lesion;
    for (const other of rows) {
      other.setAttribute("aria-selected", String(other === row));
      other.tabIndex = other === row ? 0 : -1;
    }
    if (!viewer) return; // start() goes there
    goTo(facts.lesions[chosen]);
    byId("viewer").scrollIntoView({ block: "nearest" });
  }

  function onRowKey(event, place) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key === "Enter" || event.key === " ") {
      choose(rows[place]);
    } else if (event.key in steps) {
      const next = rows[place + steps[event.key]];
      if (!next) return;
      rows[place].tabIndex = -1;
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
    rows.forEach((row, place) => {
      row.classList.add("selectable");
      row.setAttribute("aria-selected", "false");
      row.tabIndex = place === 0 ? 0 : -1;
      row.addEventListener("click", () => choose(row));
      row.addEventListener("keydown", (event) => onRowKey(event, place));
    });
  }

  function onViewerKey(event) {
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
    viewer.moveCrosshairInVox(...steps[event.key]);
    event.preventDefault();
  }

  // one plane, or all three with the axial one large, in which lesions are measured
  function arrange(types) {
    const chosenPlane = byId("planes").value;
    if (chosenPlane in types) {
      viewer.clearCustomLayout();
      viewer.setSliceType(types[chosenPlane]);
      return;
    }
    const canvas = byId("canvas");
    const wide = canvas.clientWidth > 1.15 * canvas.clientHeight;
    viewer.setCustomLayout(
      wide
        ? [
            { sliceType: types.AXIAL, position: [0, 0, 0.58, 1] },
            { sliceType: types.CORONAL, position: [0.585, 0, 0.415, 0.495] },
            { sliceType: types.SAGITTAL, position: [0.585, 0.505, 0.415, 0.495] },
          ]
        : [
            { sliceType: types.AXIAL, position: [0, 0, 1, 0.6] },
            { sliceType: types.CORONAL, position: [0, 0.605, 0.495, 0.395] },
            { sliceType: types.SAGITTAL, position: [0.505, 0.605, 0.495, 0.395] },
          ],
    );
  }

  // the slider sets the opacity of outlines; lesions are filled with half of it
  function labelStrength() {
    const outline = Number(byId("opacity").value);
    return { outline, filled: outline / 2 };
  }

  function showLabels() {
    const { outline, filled } = labelStrength();
    viewer.opts.atlasOutline = outline;
    viewer.setOpacity(1, filled);
  }

  function wireControls(types) {
    byId("planes").addEventListener("change", () => arrange(types));
    new ResizeObserver(() => arrange(types)).observe(byId("viewer"));
    byId("opacity").addEventListener("input", showLabels);
  }

  async function start() {
    const canvas = byId("canvas");
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL2");
    if (!("DecompressionStream" in window)) throw new Error("this browser is too old");
    makeRowsSelectable();
    byId("state").textContent = "The viewer is starting …";
    const { Niivue, NVImage, SLICE_TYPE, DRAG_MODE } = await loadLibrary();
    const nv = new Niivue({ ...VIEWER_OPTIONS, dragMode: DRAG_MODE.none });
    canvas.addEventListener("keydown", onViewerKey, true);
    canvas.hidden = false;
    await nv.attachToCanvas(canvas);
    const ct = await NVImage.new(await (await unpack("ct")).arrayBuffer(), "ct.nii", "gray");
    [ct.cal_min, ct.cal_max] = facts.window_hu;
    nv.addVolume(ct);
    // set before the labels are added: without a graphics card every later change takes seconds
    const { outline, filled } = labelStrength();
    nv.opts.atlasOutline = outline;
    const labels = await NVImage.new(await (await unpack("labels")).arrayBuffer(), "labels.nii", "gray", filled);
    labels.setColormapLabel(labelColors(facts.labels));
    nv.addVolume(labels);
    viewer = nv;
    viewer.onLocationChange = showPosition;
    wireControls(SLICE_TYPE);
    byId("state").hidden = true;
    byId("controls").hidden = false;
    const largest = Object.keys(facts.lesions)[0];
    const first = facts.lesions[chosen ?? largest];
    goTo(first ?? viewer.frac2mm([0.5, 0.5, 0.5], 0, true).slice(0, 3));
    byId("viewer").dataset.ready = "yes";
  }

  start().catch((error) => {
    byId("canvas").hidden = true;
    byId("state").textContent =
      `The viewer did not start: ${error.message}. It needs WebGL2; table and key images are complete without it.`;
    byId("viewer").dataset.ready = "no";
  });
})();
