// A click on a point, in whichever picture, tells of it below and marks it in all pictures.
"use strict";

const points = JSON.parse(document.getElementById("points").textContent);
const ofPoints = ["front", "roofline"];

function select(number) {
  const { traces, ...parts } = points[number];
  for (const [id, html] of Object.entries(parts)) {
    document.getElementById(id).innerHTML = html;
  }
  for (const [id, first] of Object.entries(traces)) {
    const picture = document.getElementById(id);
    Plotly.react(id, [...first, ...picture.data.slice(first.length)], picture.layout);
  }
  for (const id of ofPoints) {
    document.getElementById(id).data.forEach((trace, place) => {
      if (trace.customdata) {
        const selected = trace.customdata.flatMap((each, at) => (each === number ? [at] : []));
        Plotly.restyle(id, { selectedpoints: [selected] }, [place]);
      }
    });
  }
}

for (const id of ofPoints) {
  document.getElementById(id).on("plotly_click", (event) => {
    const number = event.points[0].customdata;
    if (number !== undefined) {
      select(number);
    }
  });
}
