module fairlead/tools/cluster/pause

go 1.26
