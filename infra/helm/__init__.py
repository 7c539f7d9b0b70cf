"""The chart seen from Python: what is generated into it, how it renders, and whether its NetworkPolicies say what its table of flows says.

`python -m infra.helm facts` writes the generated files, `python -m infra.helm golden` the golden renderings. The tests of the chart call the rest.
"""
