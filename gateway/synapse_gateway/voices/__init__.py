"""The library of voices: reference recordings on a volume that replicas share."""
