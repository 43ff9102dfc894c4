package dispatch

// Drain makes this node claim nothing more until Undrain. Admitted executions wait and show
// reason; running ones continue.
func (d *Dispatcher) Drain(reason string) {
	d.drained.Store(&reason)
	d.Wake()
}

// Undrain makes this node claim again.
func (d *Dispatcher) Undrain() {
	d.drained.Store(nil)
	d.Wake()
}

// SetLimit sets the maximum number of concurrent executions on this node. It does not stop
// running ones.
func (d *Dispatcher) SetLimit(n int) {
	d.limit.Store(int64(n))
	d.Wake()
}
