"""Pixels and light. No torch.

pixels        arrays of 8-bit and float images, their digests and sizes
light         between sRGB values and linear light, luminance
reading       files and scikit-image's samples -> pixels
deep          PNG of 16 bits, decoded within bounds
png           stimulus files: PNG of 8 or 16 bits for a display, and what an observer sees of them
colour        the colours of one image made those of another
noise         noise of a seed, random phases
aperture      how much of each pixel is stimulus, and how much background
regions       grids and polar windows
equalization  given luminance, contrast, histogram, spectrum
likeness      which of many images are nearly the same
statistics    what an observer may respond to instead of content and style
"""
