"""A batch of problems to images: the optimization. It knows nothing of cells, files and protocols but their settings.

devices          devices, precisions, determinism
environment      what this machine is
cuda_graph       a step of many GPU operations with one launch
image_range      what values an image can have
preconditioners  linear changes of variables
optimizers       what optimizers of independent rows have in common
lbfgs            L-BFGS
adam             Adam
light_penalty    what holds luminance and contrast
batch            a batch of problems, ready to be optimized
minimization     evaluate, step, stop
synthesis        Batch -> Synthesis of each cell, with losses before and after
"""
