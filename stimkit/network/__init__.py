"""Pixels to feature maps to losses.

layers    the layers by name, and words about networks
published  published files, known by their digests
formats   formats of weights files -> arrays by name
classifiers  fully connected layers of weights files
weights   weights: the type, reading, writing, digests
sources   where weights come from: names, files, downloads, caches, random numbers
vgg       a batch of images -> feature maps of layers
winograd  faster convolutions on CPUs
cudnn     convolutions and average pooling with few passes over memory, on NVIDIA GPUs
losses    feature maps -> content, style and total losses
region_losses  those of regions
fitting   filters fitted to photographs without training: the embedded ones
"""
