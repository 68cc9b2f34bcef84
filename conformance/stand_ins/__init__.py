"""Programs that take the place of what needs a GPU, in the phases of the section Upgrades."""
