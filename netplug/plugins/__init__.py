"""Docker v1 plugins of other makers (https://docs.docker.com/engine/extend/plugin_api/): where they are, and how they are asked."""
