"""Resources of runs: the open platform, the tracking run, stored assets, partitions by version, links."""
