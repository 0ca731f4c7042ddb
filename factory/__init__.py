"""The plant: engines, stages and the microworld. Sees tables, never stores."""
