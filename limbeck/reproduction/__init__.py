"""The paper claim by claim: items as declarations of grids, measurements and tests, and the verdicts that these give."""
