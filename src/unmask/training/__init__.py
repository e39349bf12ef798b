"""From face crops to weights, their evaluation and their shipped form. Needs the extra 'train'."""
