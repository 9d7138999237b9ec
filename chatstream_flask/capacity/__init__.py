"""How many slots, threads and processes so many users need, from measured steps and a simulation."""
