"""What runs are given: the open platform, the tracking run, stored assets, partitions by version, links."""
