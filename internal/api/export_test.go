package api

// BodiesInUse returns the bytes of webhook bodies that are held, and how many
// networks they come from.
func (s *Server) BodiesInUse() (bytes int64, networks int) { return s.intake.BodiesInUse() }

// FeedsInUse returns how many feeds have an entry.
func (s *Server) FeedsInUse() int {
	return s.streams.Feeds.Open()
}

// StreamsOpen returns how many credentials have streams open.
func (s *Server) StreamsOpen() int {
	return s.auth.Streaming()
}
