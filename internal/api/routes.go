package api

import (
	"slices"

	"github.com/agented/agented/internal/api/rest"
)

// allRoutes returns every route with the role that it requires, including those
// of the pages, in the order of the documentation. RoleNone is public; a test
// lists the public routes.
func (s *Server) allRoutes(pages []rest.Route) []rest.Route {
	return slices.Concat(
		s.triggerRoutes(), s.scheduleRoutes(), s.executionRoutes(), s.retentionRoutes(), s.logRoutes(), s.authRoutes(), s.serverRoutes(), pages,
		s.hooks.Routes(), s.agentRoutes(), s.applyRoutes(), s.accountRoutes(), s.conversationRoutes(), s.messageRoutes(), s.budgetRoutes(),
	)
}
