"""For each finding a good and a bad example, and what to do: words that the code does not need."""

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "lock_altered": (
        "every cell of `protocol.lock.json` has the id that its settings give.",
        'somebody changed `"max_evaluations": 300` to 500 in the lock, so that the set seems to be better converged.',
        "Get the file from the archive; never edit a lock.",
    ),
    "journal_damaged": (
        "each line of `journal.csv` has the digest of the one before.",
        "a line was taken out, to hide that a record was entered twice.",
        "Get the file from the archive. Without it, the set is what it is, but nothing says that it is what was made.",
    ),
    "protocol_altered": (
        "`protocol.toml` is the text that was run.",
        "a comment was added to the copy in the run folder.",
        "Write notes beside the folder; change the protocol where you run it from.",
    ),
    "environment_damaged": (
        "`environment.json` names the versions of each session.",
        "the file is cut off where a disk was full.",
        "Get the file from the archive. Stimuli can be regenerated without it, but nobody knows by which versions.",
    ),
    "record_damaged": (
        "every record is JSON with all columns of its schema.",
        "a record is empty after a crash of the machine.",
        "`stimkit run` makes the cell again; or get the record from the archive.",
    ),
    "record_altered": (
        "records have the digests that the journal holds.",
        "the style loss of one stimulus was written smaller.",
        "Get the record from the archive.",
    ),
    "stimulus_missing": (
        "1,280 records, 1,280 files.",
        "a stimulus was moved to a presentation's folder.",
        "`stimkit run` makes it again; copy files for use elsewhere with `stimkit export`.",
    ),
    "stimulus_altered": (
        "files have the digests that their records hold.",
        "an editor opened a PNG and saved it again, with other pixels.",
        "Get the file from the archive, or delete it and run the protocol again: the new one is compared by "
        "`regenerate`.",
    ),
    "stimulus_swapped": (
        "the id in each file is that of its name.",
        "two files were renamed while they were sorted.",
        "Rename them back: the finding says which cell the file belongs to.",
    ),
    "trace_missing": (
        "a trace for each stimulus.",
        "`traces/` was left out of a copy.",
        "Copy the whole folder.",
    ),
    "trace_altered": (
        "traces have the digests that their records hold.",
        "a trace was smoothed for a figure, and saved in place.",
        "Get the file from the archive; draw from copies.",
    ),
    "input_altered": (
        "kept inputs have the pixels that the records name.",
        "a photograph in `inputs/` was cropped later.",
        "Get the file from the archive.",
    ),
    "input_missing": (
        "every input that was kept is there.",
        "photographs were deleted from `inputs/` before the folder was shared.",
        "Use `stimkit archive`, which leaves out what has no licence and says so.",
    ),
    "measurements_altered": (
        "tables in `measurements/` have the digests that the journal holds.",
        "a rating was corrected by hand.",
        "Correct the answers, and enter them again with `stimkit norm`; or `stimkit measure RUN --remove TABLE`.",
    ),
    "linked": (
        "the folder holds files.",
        "a stimulus is a link to a file on another disk, which may change there.",
        "Replace the link by the file.",
    ),
    "extra_file": (
        "nothing but what cells account for.",
        "`stimuli/best.png`, a copy for a talk.",
        "Move it elsewhere: a program that reads the folder would show it. It does not fail an audit.",
    ),
    "table_missing": (
        "`manifest.csv`, `losses.csv`, `manifest.nc` are there.",
        "a session was killed before it wrote them.",
        "`stimkit run` or `stimkit collect` writes them again from the records.",
    ),
    "table_altered": (
        "tables say what the records say.",
        "`manifest.csv` was opened in a spreadsheet, which made dates of names.",
        "`stimkit run` writes them again. Work with a copy.",
    ),
    "loss_mismatch": (
        "losses that are computed again agree to 0.1 %.",
        "the content image was replaced by another one of the same name: the content loss is three times what was "
        "recorded.",
        "Find the input that was used, with `--inputs DIR`. If nothing was replaced, report it: it is a bug.",
    ),
    "loss_inconsistent": (
        "α · content + β · style is the total, and the trace ends with it.",
        "a record whose total does not follow from its terms.",
        "Get the record from the archive.",
    ),
    "initial_differs": (
        "the noise, or the resized photograph, that a stimulus was started from has the recorded digest.",
        "a later Pillow resizes photographs otherwise in the last bit, and `init` is `content`.",
        "Losses are as recorded. `regenerate` may give a stimulus that is not the same to the bit: do it with the "
        "packages in `environment.json`.",
    ),
    "recognition_mismatch": (
        "the classifier takes every stimulus for what is recorded.",
        "the ranks of another classifier were entered.",
        "Audit with the classifier of the run; its digest is in the manifest.",
    ),
    "statistic_mismatch": (
        "the mean luminance of the file is the recorded one.",
        "a file was made brighter, and its digest was changed with it.",
        "Get file and record from the archive.",
    ),
    "confound": (
        "luminance explains 2 % of what style explains, and the limit is 10 %.",
        "one style is dark: style explains 93 % of the variance of luminance, so that observers may answer by "
        "brightness.",
        "Equalize (`equalize_luminance`), choose other images, or analyse with it as a covariate, and say so.",
    ),
    "not_measured": (
        "`[audit] measured = { quality_rating = … }`, and a pilot was entered.",
        "the rule is there, but the measurements are not.",
        "`stimkit measure` or `stimkit norm`; or take the rule out.",
    ),
    "failed": (
        "a usable image for every cell.",
        "a learning rate of 50 led to losses that are not finite.",
        "Read `status_reason`; mend the settings, and run with `--retry-failed`.",
    ),
    "unreadable": (
        "all images open.",
        "a download that broke off.",
        "Get the file again.",
    ),
    "pending": (
        "each planned cell has a stimulus.",
        "the run was stopped after half of the cells.",
        "`stimkit run PROTOCOL` again: it goes on.",
    ),
    "losses_not_checked": (
        "all inputs were found, and all losses were computed again.",
        "the photographs are on another machine.",
        "Give their folder: `stimkit audit RUN --inputs DIR`.",
    ),
    "recognition_not_checked": (
        "the classifier was found.",
        "its file is on another machine.",
        "Give its folder with `--inputs`.",
    ),
    "dominated": (
        "the strongest filter of each layer carries 5 % of its loss.",
        "one colour-sensitive filter carries 98 % of the style loss: the stimulus has the right amount of red, and "
        "little "
        "else of the style.",
        'Use `normalize = "layer"` or `"none"`, other layers, or another style image.',
    ),
    "not_converged": (
        "the loss fell by 0.1 % in the last 20 evaluations.",
        "it fell by 12 %: the stimulus depends on when you stopped, and style and content at different ratios "
        "stopped at "
        "different distances from their optimum.",
        "Raise `max_evaluations`, or set `rtol`.",
    ),
    "stalled": (
        "the optimization ended by its rule.",
        "it ended since no step lowered the loss, often at its minimum.",
        "Look at the trace: a flat end is fine, an early stop is not.",
    ),
    "rolled_back": (
        "no evaluation was taken back.",
        "three steps led to losses that are not finite, and were taken back.",
        'Look at the stimulus. In bfloat16 or with large losses, `precision = "float32"`.',
    ),
    "clipping": (
        'no value was clipped, as with `image_range = "bounded"`.',
        "14 % of the values were outside of the range: the file is not the image that was optimized.",
        'Use `image_range = "bounded"`; lower the contrast that is asked for.',
    ),
    "loss_increase": (
        "the file's total loss is that of the optimized image.",
        "equalizing the luminance multiplied the loss by 12: the stimulus has the luminance, and no longer the style.",
        "Hold the light during the optimization (`equalize_weight`), or ask for a target that the images can have.",
    ),
    "not_equalized": (
        "luminance and contrast are within 2 % of their target.",
        "a contrast of 0.9 was asked for, and the image can have 0.6.",
        'Ask for a smaller contrast, or `gamut = "compress"`.',
    ),
    "outlier": (
        "replicates are alike.",
        "one of ten replicates has a style loss eight robust standard deviations from the others: it ended in another "
        "minimum.",
        "Look at it. Make it again with another seed by a rule of `[accept]` and `retries`.",
    ),
    "other_size": (
        "all images have 256 × 256 px.",
        "one has 256 × 255.",
        "Make it again; programs scale it.",
    ),
    "duplicate": (
        "all images differ.",
        "two names, the same pixels: a trial of a pair with them has no right answer.",
        "Take one out, or find which one is the wrong file.",
    ),
    "file_without_factors": (
        "the pattern matches every name.",
        "`cat1_elephant2.png` where the pattern has a hyphen.",
        "Correct name or pattern.",
    ),
    "factors_without_file": (
        "each row of the table has its image.",
        "a row names a file that is not there.",
        "Correct the table, or find the file.",
    ),
    "rejected": (
        "every stimulus meets the rules of `[accept]`.",
        "a stimulus is darker than the rule allows, after all retries.",
        "Look at how many and which: rejected stimuli are not shown, so the design is no longer balanced.",
    ),
    "not_monotone": (
        "from swirl to mosaic, the distance to swirl grows with every step.",
        "step 3 is closer to swirl than step 2: observers see the series turn back.",
        'More evaluations; replicates; fewer steps; `path = "geodesic"`.',
    ),
    "limit_within_chance": (
        "with 1,280 stimuli, a limit of 0.1 is far above what chance explains.",
        "with 12 stimuli of 4 styles, chance alone explains 0.4: the limit of 0.1 says nothing.",
        "More stimuli, or a limit that the design can judge.",
    ),
    "nearly_same": (
        "the closest pair differs by 26 steps of 255.",
        "two ratios give pictures that nobody can tell apart: their trials measure nothing.",
        "Levels that are further apart.",
    ),
    "not_recognized": (
        "the classifier takes the photograph of a cat for a cat.",
        "it takes it for a curtain: whether it recognizes the stimuli made from it says nothing about style.",
        "Another photograph, a larger size, or another crop.",
    ),
    "observer_disagrees": (
        "a network of another training puts the stimuli into the same order of style loss.",
        "the order is another one: which stimulus is more stylized depends on the network.",
        "Do not take the losses for a scale of what people see; measure it (`stimkit scale`).",
    ),
    "no_better_than_chance": (
        "no unrelated picture is as close to the content as the stimulus.",
        "30 % of unrelated pictures are: there is nothing left of the content.",
        "For the end of a series that may be wanted. Else, more content.",
    ),
}
"""Good example, bad example, what to do; by the name of the finding."""
