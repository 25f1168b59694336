"""What each value of a record is: names, units and descriptions of the manifest's columns."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """One column of a table."""

    name: str
    units: str
    long_name: str


MEASURES = (
    Column("mean_luminance", "1", "mean relative luminance (linear light, sRGB, 0 to 1)"),
    Column("rms_contrast", "1", "standard deviation of luminance / mean luminance"),
    Column("michelson", "1", "(brightest - darkest) / (brightest + darkest) luminance"),
    Column("mean_r", "1", "mean of the red channel (sRGB encoding, 0 to 1)"),
    Column("mean_g", "1", "mean of the green channel (sRGB encoding, 0 to 1)"),
    Column("mean_b", "1", "mean of the blue channel (sRGB encoding, 0 to 1)"),
    Column("colourfulness", "1", "colourfulness (Hasler & Suesstrunk 2003, 8-bit values)"),
    Column("spectral_slope", "1", "slope of log amplitude over log spatial frequency of luminance"),
    Column("edge_density", "1", "fraction of pixels on an edge (Canny 1986, sigma 2 pixels)"),
    Column("saturated_frac", "1", "fraction of channel values that are 0 or 255"),
    Column("entropy", "bit", "entropy of the histogram of 8-bit luma"),
)


BASIC = ("mean_luminance", "rms_contrast", "mean_r", "mean_g", "mean_b")
"""Those that every record holds."""


SSIM_CONTENT = Column(
    "ssim_content", "1", "structural similarity to the content image (Wang et al. 2004), mean over channels"
)


COLUMNS = (
    Column("stimulus_id", "", "identifier of the stimulus: digest of everything that determines its pixels"),
    Column("filename", "", "file of the stimulus in the folder stimuli"),
    Column("status", "", "accepted; rejected: it breaks a rule of the protocol; or failed: no usable image was found"),
    Column("status_reason", "", "why the status is not accepted"),
    Column("role", "", "main, or which control it is"),
    Column("control_of", "", "stimuli that it is a control of"),
    Column("attempt", "1", "number of the attempt that made the stimulus, from 1"),
    Column("content_id", "", "name of the content image"),
    Column("style_id", "", "name of the style image"),
    Column("mask_id", "", "name of the mask that says where the style goes"),
    Column("mask_sha256", "", "digest of the mask's pixels as read"),
    Column("regions", "", "where Gram matrices were taken: whole image, grid or polar windows"),
    Column("region_count", "1", "n of the grid's n x n regions"),
    Column("region_scaling", "1", "width of a polar window / its eccentricity"),
    Column("replicate", "1", "number of the replicate, from 1"),
    Column("seed", "", "seed of the initial noise of that attempt"),
    Column("content_layers_used", "", "content layers"),
    Column("style_layers_used", "", "style layers"),
    Column("content_layer_weights", "1", "weights of the content layers in the content loss"),
    Column("style_layer_weights", "1", "weights w_l of the style layers in the style loss"),
    Column("alpha", "1", "weight of the content loss in the total loss"),
    Column("beta", "1", "weight of the style loss in the total loss"),
    Column("alpha_beta_ratio", "1", "alpha / beta"),
    Column("loss_convention", "", "definition of the losses: paper (Gatys et al. 2015) or mean"),
    Column("content_sha256", "", "digest of the content image's pixels as read"),
    Column("style_sha256", "", "digest of the style image's pixels as read"),
    Column("model", "", "network"),
    Column("weights", "", "name of the weights"),
    Column("weights_sha256", "", "digest of the weights"),
    Column("preprocessing", "", "what the network expects of its input"),
    Column("pooling", "", "pooling of the network"),
    Column("normalize", "", "filters rescaled to unit mean activation"),
    Column("fit", "", "how input images were brought to shape"),
    Column("style_scale", "1", "size of the style image relative to the stimulus"),
    Column("init", "", "initial image"),
    Column("init_contrast", "1", "range of the initial noise"),
    Column("init_slope", "1", "exponent with which the amplitudes of the initial noise fall with frequency"),
    Column("init_sha256", "", "digest of the initial image's float32 values"),
    Column("optimizer", "", "optimizer"),
    Column("preconditioner", "", "preconditioner of the optimizer"),
    Column("history", "1", "pairs in the history of L-BFGS"),
    Column("learning_rate", "1", "learning rate of Adam"),
    Column("precision", "", "arithmetic of the network during optimization"),
    Column("max_evaluations", "1", "largest number of evaluations"),
    Column("rtol", "1", "relative decrease of the total loss at which the optimization stops"),
    Column("window", "1", "evaluations over which rtol is judged"),
    Column("target_style", "1", "relative style loss at which the optimization stops"),
    Column("target_content", "1", "relative content loss at which the optimization stops"),
    Column("colour", "", "colours of the images: free, grey, luminance, covariance or histogram"),
    Column("equalize_luminance", "", "target of mean luminance, or the images that it is taken from"),
    Column("equalize_contrast", "", "target of RMS contrast, or the images that it is taken from"),
    Column("equalize_histogram", "", "images that the distribution of luminance is taken from"),
    Column("equalize_spectrum", "", "images that the amplitude spectrum is taken from"),
    Column("equalize_weight", "1", "weight of the penalty that holds luminance and contrast in the optimization"),
    Column("gamut", "", "what equalization does beyond 0 to 1"),
    Column("aperture", "", "shape of the aperture"),
    Column("aperture_diameter", "deg", "diameter of the aperture, 0: the shorter side"),
    Column("aperture_ramp", "deg", "width of the raised cosine of a circular aperture"),
    Column("aperture_sigma", "deg", "standard deviation of a Gaussian aperture"),
    Column("background", "1", "relative luminance around the aperture"),
    Column("ppd", "1/deg", "pixels per degree of visual angle, 0: not known"),
    Column("transfer", "", "transfer function of the display that the file is for"),
    Column("gamma", "1", "exponent of a display with transfer gamma"),
    Column("bits", "bit", "bits of a channel in the file"),
    Column("rounding", "", "rounding to these bits"),
    Column("titrate", "", "statistic or loss by which the ratio was found"),
    Column("titrate_value", "1", "value that it was to have"),
    Column("titrate_tolerance", "1", "largest difference from that value"),
    Column("titrate_lowest", "1", "lowest ratio that was tried"),
    Column("titrate_highest", "1", "highest ratio that was tried"),
    Column("titrate_runs", "1", "ratios between them that could be tried"),
    Column("titrate_error", "1", "difference of the stimulus from the value that was wanted"),
    Column("evaluations", "1", "evaluations of loss and gradient"),
    Column("rollbacks", "1", "evaluations taken back because they were not finite"),
    Column("stop_reason", "", "rule that ended the optimization"),
    Column("loss_content_initial", "1", "content loss of the initial image"),
    Column("loss_style_initial", "1", "style loss of the initial image"),
    Column("loss_total_initial", "1", "total loss of the initial image"),
    Column("loss_content_optimized", "1", "content loss of the optimized image before clipping and rounding"),
    Column("loss_style_optimized", "1", "style loss of the optimized image before clipping and rounding"),
    Column("loss_total_optimized", "1", "total loss of the optimized image before clipping and rounding"),
    Column("loss_content_equalized", "1", "content loss after equalization, before aperture and rounding"),
    Column("loss_style_equalized", "1", "style loss after equalization, before aperture and rounding"),
    Column("loss_total_equalized", "1", "total loss after equalization, before aperture and rounding"),
    Column("loss_content_file", "1", "content loss of the stimulus as decoded from its file"),
    Column("loss_style_file", "1", "style loss of the stimulus as decoded from its file"),
    Column("loss_total_file", "1", "total loss of the stimulus as decoded from its file"),
    Column("height_px", "pixel", "height of the stimulus"),
    Column("width_px", "pixel", "width of the stimulus"),
    Column("height_deg", "deg", "height of the stimulus in degrees of visual angle"),
    Column("width_deg", "deg", "width of the stimulus in degrees of visual angle"),
    *(column for column in MEASURES if column.name in BASIC),
    Column("mean_luminance_inside", "1", "mean relative luminance inside the aperture"),
    Column("rms_contrast_inside", "1", "RMS contrast of luminance inside the aperture"),
    Column("mean_luminance_optimized", "1", "mean relative luminance inside the aperture before equalization"),
    Column("rms_contrast_optimized", "1", "RMS contrast of luminance inside the aperture before equalization"),
    Column("equalize_error", "1", "largest difference from the target of equalization, relative to it"),
    Column("clip_low_frac", "1", "fraction of channel values below 0 before clipping"),
    Column("clip_high_frac", "1", "fraction of channel values above 1 before clipping"),
    Column("file_sha256", "", "digest of the stimulus file"),
    Column("pixel_sha256", "", "digest of the stimulus's decoded pixels"),
    Column("device", "", "device"),
    Column("batch_id", "", "batch that the cell was optimized in"),
    Column("batch_size", "1", "cells in that batch"),
    Column("batch_slot", "1", "place in that batch, from 0"),
    Column("wall_time_s", "s", "wall time of the batch divided by its cells"),
    Column("stimkit_version", "", "version of stimkit"),
    Column("torch_version", "", "version of torch"),
    Column("env_id", "", "environment in environment.json that the cell was made in"),
    Column("created_utc", "", "time of the commit"),
)


OUTCOMES = (
    Column("log_loss_content", "1", "log10 of the content loss of the file"),
    Column("log_loss_style", "1", "log10 of the style loss of the file"),
    Column("log_loss_total", "1", "log10 of the total loss of the file"),
    Column("clip_low_frac", "1", "fraction of channel values below 0 before clipping"),
    Column("clip_high_frac", "1", "fraction of channel values above 1 before clipping"),
    Column("evaluations", "1", "evaluations of loss and gradient"),
    Column("wall_time_s", "s", "wall time of the batch divided by its cells"),
)
"""What else of a stimulus may follow a factor."""


CONFOUNDS = tuple(column.name for column in (*MEASURES, SSIM_CONTENT, *OUTCOMES))
"""Variables that an audit explains by the factors of the design."""


FURTHER = (
    Column("clipped", "1", "fraction of channel values that were clipped"),
    Column("loss_increase", "1", "relative increase of the total loss after the optimization"),
    Column("still_falling", "1", "relative decrease of the total loss over the last evaluations"),
    Column("content_chance_relative", "1", "content loss / that of the median unrelated image"),
    Column("content_chance_percentile", "%", "unrelated images that are as close to the content target"),
    Column("style_chance_relative", "1", "style loss / that of the median unrelated image"),
    Column("style_chance_percentile", "%", "unrelated images that are as close to the style target"),
)
