"""What will be made: a protocol crossed into cells with ids.

cells         Cell, Plan, and the inputs and weights that they need
combinations  which combinations of levels become cells
identity      ids and seeds
controls      matched controls of cells
checks        what cannot be planned
crossing      Protocol -> Plan
recognition   the classifier that looks at stimuli, and its categories
inputs        where images and weights of a plan are found
resolved      the resolved protocol of a run folder, and the plan that it describes
scales        coarse to fine: sizes of a cell, and evaluations at each
cost          arithmetic, memory, disk and time of cells
summary       what a plan amounts to
"""
