// How hits of the site's search are ranked. Sphinx gives many pages one score and sorts those by name; here the page of
// questions goes before guides and tutorials, and these before the reference.
const PLACES = { "guides/questions": 3, "guides": 1, "tutorials": 1, "reference": -1 };

var Scorer = {
  score: ([docname, , , , score]) => score + (PLACES[docname] ?? PLACES[docname.split("/")[0]] ?? 0),
  // What follows is as Sphinx has it.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
