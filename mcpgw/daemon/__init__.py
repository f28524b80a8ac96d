"""The one place that wires everything: store, gateway, links and fronts."""
