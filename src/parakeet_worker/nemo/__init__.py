"""NeMo's modules behind the scheduler's protocol. Only this room and the bake import NeMo."""
