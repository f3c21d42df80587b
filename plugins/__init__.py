"""The fusion methods that come with mertool, each an ordinary plugin."""
