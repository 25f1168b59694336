"""A cell to a batch, an optimized image to a stimulus.

preparation  input images as a cell uses them, initial images
networks     the networks that cells are optimized and measured with
mixtures     what lies between Gram matrices of images
targets      feature maps and Gram matrices that stimuli are to match
dominance    whether a loss is that of one layer or filter
finishing    from an optimized image to pixels: colours, equalization, aperture, rounding
stimulus     the file of a stimulus, and its losses
distances    losses of a stimulus to the images of its series
assembly     cells -> batch -> stimuli
recognition  what a classifier takes stimuli for
titration    the ratio at which a stimulus has a value
single       one image without a protocol
"""
