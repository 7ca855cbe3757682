"""From a catalogue to a prepared set: text, photos, splits, classes, with Ray Data."""
