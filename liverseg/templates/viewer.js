// The viewer of a report: shows CT and labels, and moves to the lesion chosen in the table. Comes after niivue.js.
"use strict";
(() => {
  const facts = JSON.parse(byId("facts").textContent);
  let viewer = null;
  let chosen = null;

  function goTo(mm) {
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true);
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function choose(lesion) {
    chosen = lesion;
    if (!viewer) return; // start() goes there
    goTo(facts.lesions[chosen]);
    byId("viewer").scrollIntoView({ block: "nearest" });
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

  function wireControls(types) {
    byId("planes").addEventListener("change", () => arrange(types));
    new ResizeObserver(() => arrange(types)).observe(byId("viewer"));
    byId("opacity").addEventListener("input", () => showLabels(viewer));
  }

  async function start() {
    requireBrowser();
    makeRowsSelectable(choose);
    byId("state").textContent = "The viewer is starting …";
    const library = await loadLibrary();
    viewer = await startViewer(byId("canvas"), "ct", "labels", facts, library);
    viewer.onLocationChange = (location) => showPosition(byId("position"), viewer, facts.to_slice, facts, location);
    wireControls(library.SLICE_TYPE);
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
