package dispatch

// Drain has this node claim nothing more, until Undrain: what is admitted waits,
// and says reason. What runs goes on.
func (d *Dispatcher) Drain(reason string) {
	d.drained.Store(&reason)
	d.Wake()
}

// Undrain has this node claim again.
func (d *Dispatcher) Undrain() {
	d.drained.Store(nil)
	d.Wake()
}

// SetLimit sets how many executions this node runs at once. More that run
// already go on.
func (d *Dispatcher) SetLimit(n int) {
	d.limit.Store(int64(n))
	d.Wake()
}
