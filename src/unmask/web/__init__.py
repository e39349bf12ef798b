"""The web application: upload a video, watch it judged, see why (extra 'web')."""
