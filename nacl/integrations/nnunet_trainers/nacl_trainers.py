"""The file that nnU-Net finds. It searches folders and imports what is in them, so this one is alone in its folder."""

from nacl.integrations.nnunet import *  # noqa: F403 (every trainer, for a search by name)
