"""A load test for speech: planned arrivals, what a listener would notice, and expectations that fail a build."""
