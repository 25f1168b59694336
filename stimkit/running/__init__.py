"""Who makes the cells: this process, shards, clusters.

batching  which cells share a batch, and how many; shards
events    what happens in a run, as events
pending   which cells still have to be made: tasks
maker     tasks -> committed stimuli on one device
session   what all runs have in common: lock, begin, tables, summary
runner    all of a plan, or a shard, in this process
worker    what a worker of a cluster does
driver    gives jobs to workers of a Dask cluster
late_recognition  classifiers look at stimuli that were there before
preview   ratios at a reduced size, from all style to all content
clusters  processes of this machine, a Dask cluster, jobs of SLURM
"""
